"""The synthetic paired ECG-CMR cohort: heart -> ECG parameters -> ECG, and heart -> cine; numpy only."""

from ecgjax.data.cohorts.synthetic.cohort import SyntheticCohort, draw_parameters

__all__ = ["SyntheticCohort", "draw_parameters"]
