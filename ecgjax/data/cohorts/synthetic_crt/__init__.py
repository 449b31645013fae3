"""Synthetic candidates for resynchronisation, whose response is known to be as predictable as one says."""

from ecgjax.data.cohorts.synthetic_crt.cohort import SyntheticCrtCohort

__all__ = ["SyntheticCrtCohort"]
