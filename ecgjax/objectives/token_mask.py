"""Which tokens of an ECG transformer stay visible while it is fine-tuned."""

import dataclasses

from jaxtyping import Array, Int, PRNGKeyArray

from ecgjax.models.mae import block_masking, kept_tokens, random_masking


@dataclasses.dataclass(frozen=True)
class TokenMask:
    """Hides `mask_ratio` of the tokens at random, or `lead_mask` of the leads and `time_mask` of the times as a whole.

    The tokens lie in a grid of `rows` along leads and `columns` along time.
    """

    mask_ratio: float
    lead_mask: float
    time_mask: float
    rows: int
    columns: int

    def __post_init__(self):
        path = "config.objective"
        if self.mask_ratio and (self.lead_mask or self.time_mask):
            raise ValueError(
                f"{path}: mask_ratio hides random tokens, lead_mask and time_mask blocks; set one kind to 0."
            )
        for name, tokens in (
            ("mask_ratio", self.rows * self.columns),
            ("lead_mask", self.rows),
            ("time_mask", self.columns),
        ):
            try:
                kept_tokens(tokens, getattr(self, name))
            except ValueError as error:
                raise ValueError(f"{path}.{name}: {error}") from None

    def keep(self, key: PRNGKeyArray, batch: int) -> Int[Array, "b k"]:
        """Indices of the visible tokens."""
        if self.mask_ratio:
            tokens = self.rows * self.columns
            return random_masking(key, batch=batch, tokens=tokens, mask_ratio=self.mask_ratio).keep
        grid = {"rows": self.rows, "columns": self.columns}
        return block_masking(key, batch=batch, **grid, lead_ratio=self.lead_mask, time_ratio=self.time_mask)
