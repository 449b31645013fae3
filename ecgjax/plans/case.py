"""One compilation, with what belongs to it and what follows from it."""

from typing import NamedTuple

from ecgjax.plans import scaling
from ecgjax.plans.batch_search import Largest
from ecgjax.plans.estimate import Estimate, estimate
from ecgjax.plans.records import Compiled
from ecgjax.plans.topologies import Topology


class Case(NamedTuple):
    """One compilation; `fsdp` devices share a model, `projection` is the width of contrastive embeddings, if any."""

    topology: Topology
    compiled: Compiled
    largest: Largest | None = None
    fsdp: int = 1
    projection: int | None = None

    @property
    def estimate(self) -> Estimate | None:
        """None where the step does not fit, or nothing is known of the chips."""
        known = self.topology.chip is not None and self.compiled.program is not None
        return estimate(self.compiled, self.topology) if known else None

    @property
    def scaling(self) -> list[scaling.Prediction]:
        """Empty where larger slices cannot be told from this compilation."""
        if self.estimate is None or not scaling.predicts(self.topology, fsdp=self.fsdp):
            return []
        targets = scaling.larger(self.topology)
        return scaling.weak_scaling(self.compiled, self.topology, targets, fsdp=self.fsdp)
