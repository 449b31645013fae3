"""Cohorts: subjects, their recordings, labels and identifiers."""

from collections.abc import Callable, Mapping

from ecgjax.data.cohorts.crt import CrtCohort
from ecgjax.data.cohorts.mitbih import MitbihCohort
from ecgjax.data.cohorts.ptbxl import PtbxlCohort
from ecgjax.data.cohorts.synthetic import SyntheticCohort
from ecgjax.data.cohorts.synthetic_beats import SyntheticBeatsCohort
from ecgjax.data.cohorts.synthetic_crt import SyntheticCrtCohort

COHORTS: Mapping[str, Callable] = {
    "crt": CrtCohort,
    "mitbih": MitbihCohort,
    "ptbxl": PtbxlCohort,
    "synthetic": SyntheticCohort,
    "synthetic_beats": SyntheticBeatsCohort,
    "synthetic_crt": SyntheticCrtCohort,
}
"""Cohorts by the name that a config gives."""
