"""Cohorts: subjects, their recordings, labels and identifiers."""

from collections.abc import Callable, Mapping

from ecgjax.data.cohorts.mitbih import MitbihCohort
from ecgjax.data.cohorts.ptbxl import PtbxlCohort
from ecgjax.data.cohorts.synthetic import SyntheticCohort

COHORTS: Mapping[str, Callable] = {
    "mitbih": MitbihCohort,
    "ptbxl": PtbxlCohort,
    "synthetic": SyntheticCohort,
}
"""Cohorts by the name that a config gives."""
