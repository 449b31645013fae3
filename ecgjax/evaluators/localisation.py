"""Which beats and which places of the image resemble each other to a cross-modal checkpoint."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ecgjax.evaluators.base import Predict, Results, Splits
from ecgjax.metrics.bootstrap import percentile_interval, subject_counts, subject_index
from ecgjax.metrics.localisation import entropy, partner_auc, region_weight, shared_variance
from ecgjax.models.localisation import (
    TEMPERATURE,
    importance,
    pairwise_importance,
    resize_image,
    resize_time,
    softmax_map,
)
from ecgjax.models.towers import UPSAMPLING

_HALVES = (("ecg", "cmr"), ("cmr", "ecg"))


@dataclasses.dataclass(frozen=True)
class Localisation:
    """Importance maps of the first `examples` of a split, and what the first `scored` ones tell about such maps.

    The map of one half compares each of its places with the other half's global projection; the pairwise map
    compares every time of the ECG with every place of the image. `softmax` turns maps into shares; `at_input_size`
    keeps them at the samples of the ECG and the pixels of the image (the pairwise map at its pixels only).

    Scalars, for each half: `partner_auc`, how often its best place resembles its own partner more than another
    subject's (chance 0.5); `entropy` of the map as shares (1 is flat), and `entropy_other` with another subject as
    partner; `shared_variance`, 1 where everyone has the same map. None of them says that a map is right. With a
    `region`, top, left, height and width as fractions of the image, `region` is the share of a map inside it, to
    be held against its area.
    """

    examples: int = 8
    scored: int = 256
    upsampling: int = 2
    temperature: float = TEMPERATURE
    softmax: bool = False
    at_input_size: bool = False
    region: tuple[float, float, float, float] | None = None
    split: str = "test"
    draws: int = 1000
    seed: int = 0

    def __post_init__(self):
        if not 1 <= self.examples <= self.scored:
            raise ValueError(
                f"examples is {self.examples} and scored {self.scored}; they must be 1 <= examples <= scored."
            )
        if self.upsampling not in UPSAMPLING:
            raise ValueError(
                f"upsampling is {self.upsampling}; choose from {', '.join(map(str, UPSAMPLING))}."
            )
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}; it must be above 0.")
        if self.region is not None:
            top, left, height, width = self.region
            if min(self.region) < 0 or top + height > 1 or left + width > 1 or not height * width:
                raise ValueError(
                    f"region is {self.region}; give top, left, height and width within the image, as fractions."
                )

    @property
    def keys(self) -> tuple[str, ...]:
        """What a cross-modal objective predicts of both halves."""
        local = tuple(f"{m}/local_projection_x{self.upsampling}" for m in ("ecg", "cmr"))
        return (*local, "ecg/projection", "cmr/projection", "ecg/attention", "ecg/input", "cmr/input")

    @property
    def name(self) -> str:
        """The directory of its results."""
        return "localisation"

    def run(self, predict: Predict, splits: Splits) -> Results:
        """Maps and scores the first row of each example; further crops are passed over."""
        found = self._first_rows(predict, splits)
        identity = splits.examples(self.split)
        n = len(found["ecg/projection"])
        local = {m: found[f"{m}/local_projection_x{self.upsampling}"] for m in ("ecg", "cmr")}
        partner = {m: found[f"{m}/projection"] for m in ("ecg", "cmr")}
        scalars: dict[str, float] = {}
        index, subjects = subject_index(identity.subject[:n])
        weight = subject_counts(subjects, draws=self.draws, seed=self.seed)[:, index]
        another = np.roll(np.arange(n), n // 2)
        maps = {}
        for own, other in _HALVES:
            z = local[own].reshape(n, -1, local[own].shape[-1])
            won = partner_auc(z, partner[other], index)
            score = percentile_interval(
                float(won.mean()), weight @ won / weight.sum(axis=1), n=n, subjects=subjects
            )
            name = f"{own}/partner_auc"
            scalars |= {name: score.value, f"{name}/low": score.low, f"{name}/high": score.high}
            maps[own] = self._map(local[own], partner[other])
            shares = _shares(maps[own])
            scalars[f"{own}/entropy"] = float(entropy(shares).mean())
            scalars[f"{own}/entropy_other"] = float(
                entropy(_shares(self._map(local[own], partner[other][another]))).mean()
            )
            scalars[f"{own}/shared_variance"] = shared_variance(np.asarray(maps[own]).reshape(n, -1))
        attention = found["ecg/attention"]
        scalars |= {"chance/partner_auc": 0.5, "n": float(n), "rate_hz": splits.rate_hz}
        scalars["attention/entropy"] = float(
            entropy(attention.reshape(-1, math.prod(attention.shape[2:]))).mean()
        )
        shown = slice(self.examples)
        pairwise = pairwise_importance(
            *(jnp.asarray(local[m][shown]) for m in ("ecg", "cmr")),
            temperature=self.temperature,
            softmax=self.softmax,
        )
        scalars |= self._in_region(maps["cmr"])
        offset, scale = (x[shown, :, None] for x in splits.to_mv(self.split))
        kept = {m: softmax_map(x[shown]) if self.softmax else x[shown] for m, x in maps.items()}
        kept |= {"pairwise": pairwise, "attention": jnp.asarray(attention[shown])}
        if self.at_input_size:
            kept = self._resized(kept, found["ecg/input"].shape[-1], found["cmr/input"].shape[1:3])
        arrays = {
            "ecg_mv": (found["ecg/input"] * scale + offset).astype(np.float32),
            "cmr": found["cmr/input"],
            **{f"{name}/map": np.asarray(x) for name, x in kept.items()},
            "subject": identity.subject[shown],
            "record": identity.record[shown],
        }
        return Results(self.name, (), scalars, arrays, dataclasses.asdict(self))

    def _first_rows(self, predict: Predict, splits: Splits) -> dict[str, np.ndarray]:
        """Predictions for the first row of each of the first `scored` examples, in the split's order."""
        n = min(self.scored, len(splits.examples(self.split).record))
        rows: dict[int, dict[str, np.ndarray]] = {}
        for batch in splits.batches(self.split):
            index = np.where(np.asarray(batch["mask"]), np.asarray(batch["index"]), -1)
            wanted = [i for i, k in enumerate(index) if 0 <= k < n and k not in rows and k not in index[:i]]
            if not wanted:
                continue
            out = predict(batch)
            for key in self.keys:
                if key not in out:
                    raise ValueError(
                        f"the checkpoint predicts {', '.join(sorted(out)) or 'nothing'}, not {key!r}; maps need "
                        "both halves of a cross_modal checkpoint."
                    )
                values = np.asarray(out[key])[wanted].astype(np.float32)
                if not np.all(np.isfinite(values)):
                    raise ValueError(f"{key} holds values that are not finite; the checkpoint is broken.")
                for i, value in zip(index[wanted], values, strict=True):
                    if i < self.examples or not key.endswith("/input"):  # Inputs are for the pictures only.
                        rows.setdefault(int(i), {})[key] = value
            if len(rows) == n:
                break
        if len(rows) < n:
            raise ValueError(f"{n - len(rows)} of {n} examples of split {self.split} came in no batch.")
        return {key: np.stack([rows[i][key] for i in range(n) if key in rows[i]]) for key in self.keys}

    def _map(self, local, partner):
        return importance(jnp.asarray(local), jnp.asarray(partner), temperature=self.temperature)

    @staticmethod
    def _resized(kept, length, pixels):
        size = {"height": pixels[0], "width": pixels[1]}
        images = {name: resize_image(kept[name], **size) for name in ("cmr", "pairwise")}
        return images | {name: resize_time(kept[name], length=length) for name in ("ecg", "attention")}

    def _in_region(self, maps) -> dict[str, float]:
        if self.region is None:
            return {}
        inside = region_weight(self.region, height=maps.shape[1], width=maps.shape[2])
        shares = np.asarray(softmax_map(maps), np.float64)
        area = self.region[2] * self.region[3]
        return {"cmr/region": float(np.sum(shares * inside, axis=(1, 2)).mean()), "chance/region": area}


def _shares(maps) -> Float[np.ndarray, "n p"]:
    return np.asarray(softmax_map(maps)).reshape(len(maps), -1)
