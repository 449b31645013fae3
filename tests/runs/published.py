"""State dicts as the published files hold them, by the lists of names of the specification, weights by formula."""

import numpy as np
from formula import draw

from ecgjax.models.posemb import sincos_positions


def transformer(width, depth, *, leads=12, columns=2, patch=50, patch_leads=1, channels=1):
    """Names and shapes of an ECG encoder: Appendix A is `transformer(384, 3, columns=25, patch=100)`."""
    tokens = leads // patch_leads * columns
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, 1 + tokens, width)}
    shapes |= {
        "patch_embed.proj.weight": (width, channels, patch_leads, patch),
        "patch_embed.proj.bias": (width,),
    }
    for i in range(depth):
        shapes |= block(f"blocks.{i}", width)
    return {**shapes, "norm.weight": (width,), "norm.bias": (width,)}


def block(at, width):
    shapes = {}
    for name, out, into in (
        ("attn.qkv", 3 * width, width),
        ("attn.proj", width, width),
        ("mlp.fc1", 4 * width, width),
        ("mlp.fc2", width, 4 * width),
    ):
        shapes |= {f"{at}.{name}.weight": (out, into), f"{at}.{name}.bias": (out,)}
    for name in ("norm1", "norm2"):
        shapes |= {f"{at}.{name}.weight": (width,), f"{at}.{name}.bias": (width,)}
    return shapes


def decoder(width, depth, *, encoder_width, tokens=24, pixels=50):
    shapes = {"mask_token": (1, 1, width), "decoder_pos_embed": (1, 1 + tokens, width)}
    shapes |= {"decoder_embed.weight": (width, encoder_width), "decoder_embed.bias": (width,)}
    for i in range(depth):
        shapes |= block(f"decoder_blocks.{i}", width)
    shapes |= {"decoder_norm.weight": (width,), "decoder_norm.bias": (width,)}
    return {**shapes, "decoder_pred.weight": (pixels, width), "decoder_pred.bias": (pixels,)}


def negative_free(width, hidden=32, narrow=8):
    """Projector and predictor of the newest release."""
    return {
        "projector.0.weight": (hidden, width),
        **norm("projector.1", hidden),
        "projector.3.weight": (width, hidden),
        **norm("projector.4", width, affine=False),
        "predictor.0.weight": (narrow, width),
        **norm("predictor.1", narrow),
        "predictor.3.weight": (width, narrow),
    }


def norm(at, width, *, affine=True):
    shapes = {f"{at}.weight": (width,), f"{at}.bias": (width,)} if affine else {}
    return {
        **shapes,
        **{f"{at}.{name}": (width,) for name in ("running_mean", "running_var")},
        f"{at}.num_batches_tracked": (),
    }


def resnet(depths=(1, 1), widths=(4, 8), *, bottleneck=False, channels=3, prefix="encoder_imaging."):
    """Names and shapes of an image encoder; Appendix B has depths 3 4 6 3, widths 64 128 256 512, bottlenecks."""
    shapes = {f"{prefix}0.weight": (widths[0], channels, 7, 7), **norm(f"{prefix}1", widths[0])}
    into = widths[0]
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        for i in range(depth):
            at, out = f"{prefix}{stage + 4}.{i}", width * (4 if bottleneck else 1)
            kernels = [(width, into, 1), (width, width, 3), (out, width, 1)]
            for k, (c_out, c_in, size) in enumerate(
                kernels if bottleneck else [(width, into, 3), (width, width, 3)]
            ):
                shapes |= {
                    f"{at}.conv{k + 1}.weight": (c_out, c_in, size, size),
                    **norm(f"{at}.bn{k + 1}", c_out),
                }
            if i == 0 and (into != out or stage):
                shapes |= {f"{at}.downsample.0.weight": (out, into, 1, 1), **norm(f"{at}.downsample.1", out)}
            into = out
    return shapes


def heads(ecg_width, cmr_width, hidden=16, projection=8):
    shapes = {}
    for name, width in (("ecg", ecg_width), ("imaging", cmr_width)):
        at = f"projection_head_{name}.layers"
        shapes |= {f"{at}.0.weight": (hidden, width), f"{at}.0.bias": (hidden,)}
        shapes |= {f"{at}.2.weight": (projection, hidden), f"{at}.2.bias": (projection,)}
    return shapes


def prefixed(prefix, shapes):
    return {f"{prefix}{name}": shape for name, shape in shapes.items()}


def by_formula(shapes, *, base=0, moved_positions=False, leads=12):
    """Arrays of these shapes; positions are the sine-cosine table, as if trained where `moved_positions`."""
    state = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = np.array(0)
        elif name.endswith("pos_embed"):
            table = sincos_positions(leads=leads, columns=(shape[1] - 1) // leads, width=shape[2])[None]
            state[name] = table + draw(name, shape, base) * moved_positions * 0.1
        else:
            state[name] = draw(name, shape, base)
    return state
