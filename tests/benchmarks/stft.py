"""What does the time-frequency image cost, as a product with waves against a Fourier transform?

  python tests/benchmarks/stft.py              # half a minute on two cores

A row is one of the images in configs/prepare.py, float32 on one CPU device, a batch of --batch. `product` is
`models.stft.stft_image`; `fft` gathers the windows and takes `jnp.fft.rfft` of each, zero-padded to all its points.
`encoder` is the default StftCnn from the signal on, evaluated. Times are the median of --runs runs. Exit code 1 where
the two images differ by more than 1e-4, or the product is the slower of both.
"""

import argparse
import os
import pathlib
import statistics
import sys
import time

os.environ["JAX_PLATFORMS"] = "cpu"
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from configs.prepare import IMAGES
from ecgjax.core.spec import ImageSpec
from ecgjax.models.stft import stft_image
from ecgjax.models.stft_cnn import StftCnn


def main() -> int:
    """Prints the table; 1 where the product is wrong or slow."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    x = jax.random.normal(jax.random.key(0), (args.batch, 1024))
    print("| image | product, ms | fft, ms | fft / product | product / encoder |\n|---|---|---|---|---|")
    failed = False
    for name, sizes in IMAGES.items():
        image = ImageSpec(**sizes, mean=-4.0, std=1.5)
        product = jax.jit(lambda x, image=image: stft_image(x, image))
        fft = jax.jit(lambda x, image=image: by_fft(x, image))
        model = StftCnn(leads=1, length=1024, image=image, rngs=nnx.Rngs(0))
        graph, state = nnx.split(model)
        whole = jax.jit(lambda x, graph=graph, state=state: nnx.merge(graph, state)(x[:, None])["embedding"])
        seconds = [timed(f, x, args.runs) for f in (product, fft, whole)]
        far = float(jnp.abs(product(x) - fft(x)).max())
        failed |= not far < 1e-4 or seconds[0] > seconds[1]
        ms = [1e3 * s for s in seconds]
        print(
            f"| {name} | {ms[0]:.1f} | {ms[1]:.1f} | {ms[1] / ms[0]:.1f} | {ms[0] / ms[2]:.2f} |", flush=True
        )
    print(f"\nbatch of {args.batch}; {os.cpu_count()} cores")
    return int(failed)


def by_fft(x, image: ImageSpec):
    """The same image by a Fourier transform of every window."""
    half = image.win // 2
    padded = jnp.pad(x, [(0, 0), (half, half)])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(image.win) / image.win)
    places = np.arange(image.frames)[:, None] * image.hop + np.arange(image.win)
    pieces = padded[:, places] * jnp.asarray(window / window.sum(), x.dtype)
    spectrum = jnp.fft.rfft(pieces, n=image.n_fft)[..., : image.bins].swapaxes(-1, -2)
    return (jnp.log(jnp.abs(spectrum) + image.log_eps) - image.mean) / image.std


def timed(function, x, runs: int) -> float:
    """Median seconds of a call, compiled."""
    jax.block_until_ready(function(x))
    found = []
    for _ in range(runs):
        began = time.perf_counter()
        jax.block_until_ready(function(x))
        found.append(time.perf_counter() - began)
    return statistics.median(found)


if __name__ == "__main__":
    sys.exit(main())
