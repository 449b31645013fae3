"""Where in the time-frequency image a checkpoint sees what it predicts."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from ecgjax.core.columns import choose
from ecgjax.core.spec import ImageSpec
from ecgjax.evaluators.base import Examples, Predict, Results, Splits
from ecgjax.evaluators.embed import embed
from ecgjax.metrics.classification import auroc
from ecgjax.models.localisation import resize_image


@dataclasses.dataclass(frozen=True)
class GradCam:
    """Grad-CAM of every target (`models.grad_cam`): its mean over the positives of a split, and over the negatives.

    Maps are of the size of the image, one for each of its r leads; their unit is that of the logit. The mean of a
    phenotype is over all. Of every condition the first `examples` positives of different subjects are kept, with
    their image and their ECG in mV. Axes are `frequency_hz` and `time_s`, 0 at the R peak in the middle of the window.

    Scalars, for every target: `peak_hz` and `peak_s` of the mean map (over leads too), and for a condition
    `told_apart`: the AUROC at which a map's likeness to the mean map of positives rather than of negatives, means of
    one half of the subjects, finds the positives among the other half. At 0.5 the maps say the same whatever the
    heart: they then show what the images have in common. None of them says that a map is right.
    """

    targets: tuple[str | int, ...] = ()
    examples: int = 4
    split: str = "test"
    modality: str = "ecg"

    def __post_init__(self):
        if self.examples < 1:
            raise ValueError(f"examples is {self.examples}; it must be at least 1.")

    @property
    def keys(self) -> tuple[str, ...]:
        """Maps and images, of which only encoders of images predict any."""
        return (f"{self.modality}/grad_cam", f"{self.modality}/image", "logits")

    @property
    def name(self) -> str:
        """The directory of its results."""
        return "grad_cam"

    def run(self, predict: Predict, splits: Splits) -> Results:
        """Averages the maps of a split and keeps some."""
        if splits.image is None:
            raise ValueError(
                "the data have no time-frequency image (config.ecg.image), which maps are drawn over."
            )
        chosen = choose([target.name for target in splits.targets], self.targets, "targets")
        targets = [splits.targets[i] for i in chosen]
        identity = splits.examples(self.split)
        maps = embed(predict, splits, self.split, keys=self.keys[:1])[self.keys[0]]  # [n m r y x]
        outputs = 2 if len(targets) == 1 and targets[0].kind == "binary" else len(targets)
        if maps.shape[1] != outputs:
            raise ValueError(
                f"the checkpoint has maps of {maps.shape[1]} outputs, targets names {len(targets)} label columns; name "
                f"those in the evaluator's targets that config.objective.targets names."
            )
        maps = maps[:, -len(targets) :]  # A single condition has an output for its absence, too.
        means, scalars, shown = {}, {}, []
        for k, (column, target) in enumerate(zip(chosen, targets, strict=True)):
            label, own = identity.label[:, column], maps[:, k]
            if target.kind == "binary":
                means[f"mean/{target.name}/positive"] = _mean(own, label == 1)
                means[f"mean/{target.name}/negative"] = _mean(own, label == 0)
                scalars[f"{target.name}/told_apart"] = told_apart(own, label, identity.subject)
                shown += [(k, i) for i in self._first(label == 1, identity)]
            else:
                means[f"mean/{target.name}"] = _mean(own, ~np.isnan(label))
        time_s, frequency_hz = axes(splits.image, splits.rate_hz)
        means = {name: _at_image_size(mean, splits.image) for name, mean in means.items()}
        for target in targets:
            mean = means[f"mean/{target.name}" + ("/positive" if target.kind == "binary" else "")].mean(0)
            y, x = np.unravel_index(np.argmax(mean), mean.shape)
            found = (
                (float(frequency_hz[y]), float(time_s[x])) if np.isfinite(mean).all() else (np.nan, np.nan)
            )
            scalars |= dict(zip((f"{target.name}/peak_hz", f"{target.name}/peak_s"), found, strict=True))
        arrays = {**means, "time_s": time_s, "frequency_hz": frequency_hz}
        if shown:
            arrays |= self._pictures(predict, splits, maps, shown, [target.name for target in targets])
        scalars |= {"n": float(len(maps)), "rate_hz": splits.rate_hz}
        return Results(self.name, (), scalars, arrays, dataclasses.asdict(self))

    def _first(self, positive: Bool[np.ndarray, " n"], identity: Examples) -> list[int]:
        """The first positives of different subjects."""
        found = np.flatnonzero(positive)
        _, first = np.unique(identity.subject[found], return_index=True)
        return [int(i) for i in found[np.sort(first)][: self.examples]]

    def _pictures(self, predict, splits, maps, shown, names) -> dict[str, np.ndarray]:
        wanted = np.unique([i for _, i in shown])

        def with_signal(batch):
            return {**predict(batch), "signal": batch[self.modality]}

        keys = (self.keys[1], "logits", "signal")
        out = embed(with_signal, splits, self.split, keys=keys, wanted=wanted)
        rows = [np.searchsorted(wanted, i) for _, i in shown]
        place = [i for _, i in shown]
        offset, scale = (values[place][:, :, None] for values in splits.to_mv(self.split))
        identity = splits.examples(self.split)
        image = out[self.keys[1]][rows]
        return {
            "example/target": np.array([names[k] for k, _ in shown]),
            "example/subject": identity.subject[place],
            "example/record": identity.record[place],
            "example/signal_mv": out["signal"][rows] * scale + offset,
            "example/image": image if image.ndim == 4 else image[:, None],
            "example/map": _at_image_size(np.stack([maps[i, k] for k, i in shown]), splits.image),
            "example/logit": np.array(
                [out["logits"][row][k - len(names)] for row, (k, _) in zip(rows, shown, strict=True)]
            ),
        }


def told_apart(
    maps: Float[np.ndarray, "n r y x"], label: Float[np.ndarray, " n"], subject: np.ndarray
) -> float:
    """AUROC among the second half of the subjects, by cosine likeness to the mean maps of the first; NaN without both.

    A map without any place has a likeness of 0 to both.
    """
    unit = maps.reshape(len(maps), -1).astype(np.float64)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    names, index = np.unique(subject, return_inverse=True)
    first = index < len(names) // 2
    groups = [first & (label == value) for value in (0, 1)]
    if not all(group.any() for group in groups):
        return float("nan")
    negative, positive = (unit[group].mean(0) for group in groups)
    return auroc(label[~first], unit[~first] @ (positive - negative))


def axes(image: ImageSpec, rate_hz: float) -> tuple[Float[np.ndarray, " x"], Float[np.ndarray, " y"]]:
    """Centres of frames, in seconds after the R peak, and frequencies of rows."""
    time = (np.arange(image.frames) * image.hop - image.span // 2) / rate_hz
    return time, np.arange(image.bins) * rate_hz / image.n_fft


def _mean(maps: Float[np.ndarray, "n r y x"], wanted: Bool[np.ndarray, " n"]) -> Float[np.ndarray, "r y x"]:
    """NaN where none is wanted."""
    return maps[wanted].mean(0) if wanted.any() else np.full(maps.shape[1:], np.nan, np.float32)


def _at_image_size(maps: Float[np.ndarray, "*n y x"], image: ImageSpec) -> Float[np.ndarray, "*n y2 x2"]:
    return np.asarray(resize_image(jnp.asarray(maps), height=image.bins, width=image.frames))
