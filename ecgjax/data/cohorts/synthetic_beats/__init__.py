"""Synthetic Holter recordings of one lead, beat by beat: what MIT-BIH is used for, with no download."""

from ecgjax.data.cohorts.synthetic_beats.cohort import SyntheticBeatsCohort

__all__ = ["SyntheticBeatsCohort"]
