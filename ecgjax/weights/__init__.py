"""Floor 2: published PyTorch weights in and out, without PyTorch."""

TORCH = (".pth", ".pt", ".ckpt", ".bin")
SAFETENSORS = ".safetensors"


def is_weights(path: str) -> bool:
    """Whether a path names a file of weights, not a workdir, by its ending."""
    return path.endswith((*TORCH, SAFETENSORS))
