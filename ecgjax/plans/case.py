"""One compilation, with what belongs to it and what follows from it."""

from typing import NamedTuple

from ecgjax.plans import scaling
from ecgjax.plans.batch_search import Largest
from ecgjax.plans.estimate import Estimate, estimate
from ecgjax.plans.prices import Contrast
from ecgjax.plans.records import Compiled
from ecgjax.plans.topologies import Topology, parse

NOT_MEASURED = "A model, not measured: nothing of this was run."


class Case(NamedTuple):
    """One compilation; `fsdp` devices share a model, `contrast` is what its loss compares, if anything."""

    topology: Topology
    compiled: Compiled
    largest: Largest | None = None
    fsdp: int = 1
    contrast: Contrast | None = None

    @property
    def estimate(self) -> Estimate | None:
        """None where the step does not fit, or nothing is known of the chips."""
        known = self.topology.chip is not None and self.compiled.program is not None
        return estimate(self.compiled, self.topology) if known else None

    @property
    def places(self) -> list[tuple[Topology, int]]:
        """Where it was compiled and the larger slices that it predicts, each with its batch."""
        larger = [(parse(one.topology), one.estimate.batch_size) for one in self.scaling[1:]]
        return [(self.topology, self.compiled.batch_size), *larger]

    @property
    def scaling(self) -> list[scaling.Prediction]:
        """Empty where larger slices cannot be told from this compilation."""
        if self.estimate is None or not scaling.predicts(self.topology, fsdp=self.fsdp):
            return []
        targets = scaling.larger(self.topology)
        return scaling.weak_scaling(self.compiled, self.topology, targets, fsdp=self.fsdp)
