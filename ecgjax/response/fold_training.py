"""A network within the folds of a cross-validation: one training step and one prediction, compiled once for all."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import Float, Int

from ecgjax.core import mesh as meshes
from ecgjax.core import rng
from ecgjax.response.crossvalidation.contenders import Scores, margin
from ecgjax.response.fold_config import FROZEN
from ecgjax.response.kept_folds import Interrupted
from ecgjax.response.pool import Pool
from ecgjax.runs import initial
from ecgjax.runs.assemble import Assembly
from ecgjax.train.once import Once
from ecgjax.train.state import TrainState, make_init

_KEYS = ("ecg/embedding", "prediction")
_MAPS = "ecg/maps"


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """What `config` trains, started anew for every fold: from `sources`, or from fresh weights where there are none.

    `leave` says between two steps whether to stop.
    """

    config: Mapping[str, Any]
    run: Assembly
    pool: Pool
    sources: tuple[initial.Source, ...]
    leave: Callable[[], bool]

    def first(self, workdir: epath.Path) -> TrainState:
        """The state that frozen modes embed with, whose origin is said and written down."""
        return initial.initialise(self._drawn(self.config["seed"]), self.sources, workdir)

    def train(
        self, chosen: Int[np.ndarray, " k"], label: Float[np.ndarray, "r m"], *, seed: int
    ) -> TrainState:
        """Trains for `config.steps` on the recordings at `chosen`; `label` holds what training may know."""
        state = initial.started(self._drawn(seed), self.sources)
        key = jax.device_put(rng.stream(seed, "step"), meshes.replicated(self.run.mesh))
        sizes = {"batch_size": self.config["data"]["batch_size"], "crop": self.config["data"]["crop"]}
        batches = self.pool.train_batches(chosen, label, **sizes, seed=seed)
        try:
            for _ in range(self.config["steps"]):
                if self.leave():
                    raise Interrupted
                state, metrics = self._step(state, meshes.to_global(next(batches), self.run.mesh), key)
        finally:
            batches.close()
        if not math.isfinite(float(metrics["loss"])):
            raise ValueError(
                "config.optimizer: the loss of a fold is not finite at its last step; lower schedule.learning_rate, or "
                "set clip_norm."
            )
        return state

    def predict(self, state: TrainState, chosen: Int[np.ndarray, " k"]) -> dict[str, np.ndarray]:
        """Embedding [k d] and probability [k 1] of the recordings at `chosen`, the mean over crops.

        A frozen encoder that has feature maps of several leads gives these as well.
        """
        data, sums = self.config["data"], {}
        for batch in self.pool.evaluation_batches(
            chosen, batch_size=data["batch_size"], crop=data["crop"], crops=data["crops"]
        ):
            real, index = batch["mask"], batch["index"]
            placed = meshes.to_global({k: batch[k] for k in ("ecg", "beats") if k in batch}, self.run.mesh)
            out = jax.device_get(self._forward(state.params, state.extra, placed))
            for name, values in out.items():
                kind = np.float32 if name == _MAPS else np.float64  # Maps are large, and only drawn.
                total = sums.setdefault(name, np.zeros((len(chosen), *values.shape[1:]), kind))
                np.add.at(total, index[real], values[real])
        return {name: total / data["crops"] for name, total in sums.items()}

    def _drawn(self, seed: int) -> TrainState:
        return self._init(rng.stream(seed, "init"))

    @functools.cached_property
    def _init(self):
        shardings = jax.tree.map(lambda leaf: leaf.sharding, self.run.state)
        return jax.jit(make_init(self.run.objective, self.run.tx), out_shardings=shardings)

    @functools.cached_property
    def _step(self) -> Once:
        return Once(self.run.train_step, "train step")

    @functools.cached_property
    def _forward(self) -> Once:
        def forward(params, extra, batch):
            out = self.run.objective.predict(params, extra, batch)
            maps = [_MAPS] if self.config["mode"] in FROZEN and _MAPS in out else []
            return {name: out[name] for name in (*_KEYS, *maps)}

        return Once(jax.jit(forward), "prediction")


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedInFolds:
    """A network that is trained in every fold, as a contender; a patient's probability is the mean of its recordings.

    One inner fold of the training patients is not trained on: its probabilities choose the threshold. Probabilities of
    patients that were trained on are too sure of themselves for that, and a training for every inner fold costs too
    much. Number of steps and rate stand in the config; nothing looks at the test patients, nor stops early.
    """

    name: str
    network: Network
    patient: Int[np.ndarray, " r"]
    column: int

    def fit_predict(
        self,
        train: Int[np.ndarray, " a"],
        truth: Float[np.ndarray, " a"],
        test: Int[np.ndarray, " b"],
        *,
        inner: Int[np.ndarray, " a"],
        seed: int,
    ) -> Scores:
        """Trains on all inner folds but the first, and answers about that one and `test`."""
        held = inner == inner.min()
        known = np.full(self.patient.max() + 1, np.nan)
        known[train[~held]] = truth[~held]
        label = np.full_like(self.network.pool.label, np.nan)
        mine = self.patient >= 0
        label[mine, self.column] = known[self.patient[mine]]
        state = self.network.train(np.flatnonzero(~np.isnan(label[:, self.column])), label, seed=seed)
        asked = np.concatenate([train[held], test])
        probability = self._probability(state, asked)
        among_training = np.full(len(train), np.nan)
        among_training[held] = probability[: held.sum()]
        answer = probability[held.sum() :]
        return Scores(margin(answer, truth[~held]), answer, among_training)

    def _probability(self, state: TrainState, patients: Int[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        rows = np.flatnonzero(np.isin(self.patient, patients))
        made = self.network.predict(state, rows)["prediction"][:, 0]
        return np.array([made[self.patient[rows] == patient].mean() for patient in patients])
