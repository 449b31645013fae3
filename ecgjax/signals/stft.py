"""Time-frequency image of one lead, in numpy: what `models.stft` computes on the device."""

import numpy as np
from jaxtyping import Float
from numpy.lib.stride_tricks import sliding_window_view

from ecgjax.core.spec import ImageSpec


def log_image(
    signal: Float[np.ndarray, "*b span"], image: ImageSpec
) -> Float[np.ndarray, "*b {image.bins} {image.frames}"]:
    """log(|X| + log_eps) of X = rfft(w x) / sum(w), w a periodic Hann window; not yet standardised.

    Frame i is centred on sample i * hop, zeros beyond the ends. A sinusoid of amplitude A at a bin has |X| = A / 2.
    """
    if signal.shape[-1] != image.span:
        raise ValueError(f"{signal.shape[-1]} samples; the image spans {image.span} (config.ecg.image.span).")
    half = image.win // 2
    padded = np.pad(signal, [(0, 0)] * (signal.ndim - 1) + [(half, half)])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(image.win) / image.win)
    pieces = sliding_window_view(padded, image.win, axis=-1)[..., :: image.hop, :][..., : image.frames, :]
    spectrum = np.fft.rfft(pieces * (window / window.sum()), n=image.n_fft, axis=-1)[..., : image.bins]
    return np.swapaxes(np.log(np.abs(spectrum) + image.log_eps), -1, -2)
