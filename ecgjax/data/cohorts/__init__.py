"""Cohorts: subjects, their recordings, labels and identifiers."""

from collections.abc import Callable, Mapping

from ecgjax.data.cohorts.synthetic import SyntheticCohort

COHORTS: Mapping[str, Callable] = {"synthetic": SyntheticCohort}
"""Cohorts by the name that a config gives."""
