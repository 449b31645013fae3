"""Patients before cardiac resynchronisation: 12-lead recordings and a table of who responded."""

from ecgjax.data.cohorts.crt.cohort import CrtCohort

__all__ = ["CrtCohort"]
