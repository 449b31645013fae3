"""A recording of several leads, read beat by beat and lead by lead through one encoder of single leads."""

from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ecgjax.core.precision import wide
from ecgjax.core.spec import ImageSpec

_READ = ("embedding", "map", "activation", "image")
"""What of a shared encoder's output is pooled."""


class Leadwise(nnx.Module):
    """Windows round the beats of the leads `read`, one encoder `shared` by all, its embeddings pooled.

    The default leads are those in which left bundle branch block is looked for. Beats are pooled first, each lead for
    itself: by the `median` of every value, the `mean`, or `attention`, weights that a linear map of the embeddings
    gives. Leads are then concatenated, or pooled by attention likewise. In training, `train_beats` above 0 draws as
    many beats of every recording anew in each step: a fraction of the work, and what differs between beats acts as
    augmentation.

    Its leaves lie under `shared/` by the names that they have in a run on single beats.
    """

    reads_beats = True

    def __init__(
        self,
        *,
        leads: int,
        length: int,
        lead_names: Sequence[str],
        image: ImageSpec,
        encoder: Callable[[nnx.Rngs], nnx.Module],
        read: Sequence[str] = ("I", "aVL", "V1", "V2", "V5", "V6"),
        pool: Literal["median", "mean", "attention"] = "median",
        join: Literal["concatenate", "attention"] = "concatenate",
        train_beats: int = 0,
        rngs: nnx.Rngs,
    ):
        absent = [name for name in read if name not in lead_names]
        if not read or absent or len(set(read)) < len(read):
            raise ValueError(
                f"read is {tuple(read)}; it names different leads among {', '.join(lead_names)}, one at least."
            )
        if train_beats < 0:
            raise ValueError(f"train_beats is {train_beats}; give 0 for all beats, or how many to draw.")
        if image.span > length:
            raise ValueError(f"windows of {image.span} samples do not fit into {length}.")
        self.leads, self.read = leads, tuple(lead_names.index(name) for name in read)
        self.span, self.pool, self.join_by, self.train_beats = image.span, pool, join, train_beats
        self.shared = encoder(rngs)
        width = self.shared.width
        if pool == "attention":
            self.beat_attention = nnx.Linear(width, 1, use_bias=False, rngs=rngs)
        if join == "attention":
            self.lead_attention = nnx.Linear(width, 1, use_bias=False, rngs=rngs)
        self.width = width * len(read) if join == "concatenate" else width

    @property
    def last_block(self) -> tuple[str, ...]:
        """Regexes of the paths that partial fine-tuning trains."""
        return (*(f"shared/{path}" for path in self.shared.last_block), "beat_attention/", "lead_attention/")

    def __call__(
        self,
        x: Float[Array, "b l t"],
        *,
        beats: Int[Array, "b n"] | None = None,
        train: bool = False,
        key: PRNGKeyArray | None = None,
    ) -> dict[str, Float[Array, "..."]]:
        """Encodes the beats whose R peaks are the samples `beats`; -1 and windows beyond an end are no beats.

        Returns `embedding [b d]`, the `join` of `leads [b r c]`; where the shared encoder has them also `maps` and
        `activations [b r y x c]`, weighted over beats as the embeddings were, so that the means of the maps are
        `leads`, and the mean `images [b r y x]` of the beats. All are 0 for a recording without beats.
        """
        if beats is None:
            raise ValueError(
                "leadwise reads beats, which the batch lacks; prepare data with config.ecg.beats."
            )
        if x.shape[1] != self.leads:
            raise ValueError(f"{x.shape[1]} leads; the encoder was built for {self.leads}.")
        key_beats, key_shared = (None, None) if key is None else jax.random.split(key)
        if train and self.train_beats:
            beats = draw_beats(key_beats, beats, count=self.train_beats)
        windows, whole = beat_windows(x[:, jnp.array(self.read)], beats, span=self.span)
        out = self._at_once(windows, key_shared) if train else self._beat_by_beat(windows, whole)
        embedding = wide(out["embedding"])
        weights = self._beat_weights(embedding, whole)
        pooled = jnp.sum(weights * embedding, axis=1)
        result = {"embedding": self.join(pooled).astype(out["embedding"].dtype), "leads": pooled}
        for name in ("map", "activation"):
            if name in out:
                weight = jnp.broadcast_to(weights, embedding.shape).astype(out[name].dtype)
                result[f"{name}s"] = jnp.einsum("bnrc,bnryxc->bryxc", weight, out[name])
        if "image" in out:
            count = jnp.maximum(whole.sum(1), 1)[:, None, None, None]
            result["images"] = jnp.sum(out["image"], axis=1, where=whole[:, :, None, None, None]) / count
        return result

    def join(self, leads: Float[Array, "b r c"]) -> Float[Array, "b d"]:
        """The embedding of a recording, from one of each of its leads."""
        if self.join_by == "concatenate":
            return leads.reshape(len(leads), -1)
        return jnp.sum(jax.nn.softmax(self.lead_attention(leads), axis=1) * leads, axis=1)

    def _at_once(self, windows, key):
        """What the shared encoder makes of all windows, as training does: a loop has slow gradients on a CPU."""
        b, n, r, span = windows.shape
        out = self.shared(windows.reshape(b * n * r, 1, span), train=True, key=key)
        return {name: x.reshape(b, n, r, *x.shape[1:]) for name, x in out.items() if name in _READ}

    def _beat_by_beat(self, windows, whole):
        """The same in evaluation, in the memory of one beat, and without work where no recording has another one.

        Places for beats are many more than beats: 32 for the 12 or so of ten seconds.
        """
        b, _, r, span = windows.shape

        def encode(windows):
            out = self.shared(windows.reshape(b * r, 1, span), train=False)
            return {name: x.reshape(b, r, *x.shape[1:]) for name, x in out.items() if name in _READ}

        def nothing(windows):
            return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(encode, windows))

        beats = (whole.any(0), windows.swapaxes(0, 1))
        out = jax.lax.map(lambda beat: jax.lax.cond(beat[0], encode, nothing, beat[1]), beats)
        return {name: x.swapaxes(0, 1) for name, x in out.items()}

    def _beat_weights(
        self, embedding: Float[Array, "b n r c"], whole: Bool[Array, "b n"]
    ) -> Float[Array, "b n r #c"]:
        """Weights of sum 1 over the beats of a recording, of sum 0 where it has none."""
        whole = whole[:, :, None, None]
        if self.pool == "median":
            return _median_weights(embedding, whole)
        if self.pool == "mean":
            return jnp.broadcast_to(
                whole / jnp.maximum(whole.sum(1, keepdims=True), 1), (*embedding.shape[:3], 1)
            )
        scores = jnp.where(whole, self.beat_attention(embedding), -jnp.inf)
        highest = jax.lax.stop_gradient(scores.max(1, keepdims=True))
        powers = jnp.exp(scores - jnp.where(jnp.isfinite(highest), highest, 0))
        total = powers.sum(1, keepdims=True)
        return powers / jnp.where(total > 0, total, 1)


def beat_windows(
    x: Float[Array, "b r t"], beats: Int[Array, "b n"], *, span: int
) -> tuple[Float[Array, "b n r {span}"], Bool[Array, "b n"]]:
    """Windows of `span` samples with the R peak at sample span // 2, and which of them are whole; others are zeros."""
    starts = beats - span // 2
    whole = (beats >= 0) & (starts >= 0) & (starts + span <= x.shape[-1])

    def cut(recording, starts):
        return jax.vmap(lambda start: jax.lax.dynamic_slice_in_dim(recording, start, span, axis=1))(starts)

    # Slices are moved inside where they are not whole, and blanked: what they hold there is of another time.
    windows = jax.vmap(cut)(x, jnp.where(whole, starts, 0))
    return jnp.where(whole[:, :, None, None], windows, 0), whole


def draw_beats(key: PRNGKeyArray, beats: Int[Array, "b n"], *, count: int) -> Int[Array, "b {count}"]:
    """Different beats of every recording, drawn uniformly; places without a beat (-1) come last."""
    if count > beats.shape[1]:
        raise ValueError(
            f"train_beats is {count}, but the data have {beats.shape[1]} places for beats; choose fewer, or 0 for all."
        )
    order = jnp.argsort(jnp.where(beats >= 0, jax.random.uniform(key, beats.shape), jnp.inf), axis=1)
    return jnp.take_along_axis(beats, order[:, :count], axis=1)


def _median_weights(
    values: Float[Array, "b n r c"], valid: Bool[Array, "b n 1 1"]
) -> Float[Array, "b n r c"]:
    """1 for the middle value of each channel, or 1/2 for both of an even number; constants to the gradient."""
    ranks = jnp.argsort(jnp.argsort(jnp.where(valid, values, jnp.inf), axis=1), axis=1)
    count = valid.sum(1, keepdims=True)
    weights = ((ranks == (count - 1) // 2).astype(values.dtype) + (ranks == count // 2)) / 2
    return jax.lax.stop_gradient(jnp.where(valid, weights, 0))
