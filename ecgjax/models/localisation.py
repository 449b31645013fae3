"""Where an ECG and an image resemble each other: importance maps and attention as maps (arXiv 2308.05764).

Features of every place are upsampled, projected by the head that was trained on the pooled embedding, and compared
by cosine with the partner's projection. Such a map says which places look like the partner to the model; it is no
evidence of where a finding lies.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ecgjax.core.precision import wide

TEMPERATURE = 0.6
"""Of the reference's code; the published run used 0.8."""


def upsample_image(features: Float[Array, "b y x d"], *, factor: int) -> Float[Array, "b y2 x2 d"]:
    """Bilinear, half-pixel centres, edges clamped."""
    b, y, x, d = features.shape
    return _resize(features, (b, y * factor, x * factor, d))


def upsample_tokens(
    tokens: Float[Array, "b n d"], *, rows: int, factor: int
) -> Float[Array, "b rows columns d"]:
    """Lead-major patch tokens on their grid, linearly upsampled along time within each row.

    The reference upsamples them as one row, where the end of a lead mixes with the start of the next.
    """
    b, n, d = tokens.shape
    if n % rows:
        raise ValueError(f"{n} tokens are no whole number of columns for {rows} rows; give the encoder's.")
    return _resize(tokens.reshape(b, rows, n // rows, d), (b, rows, n // rows * factor, d))


def importance(
    local: Float[Array, "b u v k"], partner: Float[Array, "b k"], *, temperature: float = TEMPERATURE
) -> Float[Array, "b u v"]:
    """Cosine of the projection of every place with the partner's global one, over `temperature`."""
    return jnp.einsum("buvk,bk->buv", _unit(local), _unit(partner)) / temperature


def pairwise_importance(
    ecg: Float[Array, "b l t k"],
    cmr: Float[Array, "b y x k"],
    *,
    temperature: float = TEMPERATURE,
    softmax: bool = False,
) -> Float[Array, "b t y x"]:
    """Cosine of every time of the ECG with every place of the image, over `temperature`; mean over leads.

    With `softmax`, of each lead's map over places.
    """
    ecg, cmr = _unit(ecg), _unit(cmr)
    if not softmax:  # The mean over leads first: a twelfth of the work and memory.
        return jnp.einsum("btk,byxk->btyx", ecg.mean(1), cmr) / temperature
    by_lead = jnp.einsum("bltk,byxk->bltyx", ecg, cmr) / temperature
    return jax.nn.softmax(by_lead, axis=(-2, -1)).mean(1)


def softmax_map(importance: Float[Array, "b u v"]) -> Float[Array, "b u v"]:
    """Shares of all places of a map: one image, or all leads and times of one ECG."""
    return jax.nn.softmax(wide(importance), axis=(-2, -1))


def resize_image(maps: Float[Array, "*b y x"], *, height: int, width: int) -> Float[Array, "*b y2 x2"]:
    """Maps at the size of the image they belong to: bilinear, half-pixel centres."""
    return _resize(maps, (*maps.shape[:-2], height, width))


def resize_time(maps: Float[Array, "*b t"], *, length: int) -> Float[Array, "*b t2"]:
    """Maps at the length of the ECG they belong to: linear, half-pixel centres."""
    return _resize(maps, (*maps.shape[:-1], length))


def received_attention(
    attention: Float[Array, "b h n n"], *, rows: int, from_class: bool
) -> Float[Array, "b h rows columns"]:
    """Attention that every patch receives, shares of all patches: from the class token, or mean over patch tokens.

    With a mean-pooled encoder the latter is what each patch's value weighs in the pooled output of the block. The
    reference plots what one lead's patches receive from each other, and what each patch gives to all: next to nothing,
    since a row of a softmax map sums to 1.
    `attention` has queries second to last and the class token first.
    """
    b, heads, n, _ = attention.shape
    queries = attention[:, :, :1] if from_class else attention[:, :, 1:]
    received = wide(queries)[..., 1:].mean(2)
    received = received / received.sum(-1, keepdims=True)
    if (n - 1) % rows:
        raise ValueError(f"{n - 1} patches are no whole number of columns for {rows} rows.")
    return received.reshape(b, heads, rows, (n - 1) // rows)


def _resize(x: Float[Array, "..."], shape: tuple[int, ...]) -> Float[Array, "..."]:
    # Weights beyond the edge are dropped and the rest scaled up, which for a linear kernel is to clamp.
    x = wide(x)
    return jax.image.resize(x, shape, "linear", antialias=False, precision=jax.lax.Precision.HIGHEST)


def _unit(z: Float[Array, "*b k"]) -> Float[Array, "*b k"]:
    """Length 1 along the last axis; zeros stay zero."""
    z = wide(z)
    return z * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(z), axis=-1, keepdims=True), 1e-24))
