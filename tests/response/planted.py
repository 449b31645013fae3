"""Cohorts of columns with a known AUROC, for tests of the cross-validation."""

import numpy as np
import scipy.stats

from ecgjax.response.crossvalidation.patients import Patients, by_patient


def cohort(n=120, *, auc=0.8, noise=4, seed=0, prevalence=0.5) -> tuple[Patients, np.ndarray]:
    """`signal` tells the outcomes apart with this Bayes AUROC, `noise0` and on tell nothing; none is missing."""
    generator = np.random.default_rng(seed)
    truth = (np.arange(n) < round(n * prevalence)).astype(float)[generator.permutation(n)]
    shift = np.sqrt(2) * scipy.stats.norm.ppf(auc)
    columns = {"signal": generator.normal(size=n) + shift * truth}
    columns |= {f"noise{k}": generator.normal(size=n) for k in range(noise)}
    subject = np.array([f"{value:016x}" for value in generator.integers(2**62, size=n)])
    return by_patient(subject, truth, columns=columns, features={})
