"""How often the 95 % interval of a cross-validated AUROC leaves out the truth, over simulated cohorts.

Run it by hand: PYTHONPATH=. OMP_NUM_THREADS=1 python tests/benchmarks/null_cohorts.py
"""

import argparse
import pathlib
import sys
import time

import numpy as np

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "response"))

import planted

from ecgjax.response.comparators.classical import MODELS, Classical
from ecgjax.response.comparators.measures import SingleMeasure
from ecgjax.response.crossvalidation.leaks import permuted_labels
from ecgjax.response.crossvalidation.run import CrossValidation


def main() -> None:
    """Prints one line a contender: how often 0.5 lies outside, on which side, and the mean of the AUROC."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohorts", type=int, default=40)
    parser.add_argument("--patients", type=int, default=71)
    parser.add_argument("--noise", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--auc", type=float, default=0.5)
    parser.add_argument("--models", nargs="*", default=["logistic"], choices=list(MODELS))
    parser.add_argument("--permutations", type=int, default=0, help="refits with permuted labels a cohort")
    given = parser.parse_args()
    settings = CrossValidation(repeats=given.repeats, draws=1000, permutations=500, reference="signal")
    rows: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    p: dict[str, list[float]] = {}
    start = time.process_time()
    for seed in range(given.cohorts):
        patients, truth = planted.cohort(given.patients, auc=given.auc, noise=given.noise, seed=1000 + seed)
        contenders = [Classical(patients, tuple(patients.columns), model) for model in given.models]
        results = settings.run(patients, truth, [*contenders, SingleMeasure(patients, "signal")])
        for row in results.rows:
            if row.metric in ("auroc", "auroc_fold_mean", "auroc_difference"):
                rows.setdefault((row.input, row.metric), []).append((row.value, row.low, row.high))
        for contender in contenders:
            p.setdefault(f"{contender.name}, not refitted", []).append(
                results.scalars[f"{contender.name}|permutation_p"]
            )
            if given.permutations:
                observed = next(
                    r.value for r in results.rows if (r.input, r.metric) == (contender.name, "auroc")
                )
                found = permuted_labels(
                    lambda dealt, own=contender: own,
                    truth,
                    observed=observed,
                    permutations=given.permutations,
                    folds=5,
                    inner=3,
                    seed=seed,
                )
                p.setdefault(f"{contender.name}, refitted", []).append(found.p)
    print(
        f"{given.cohorts} cohorts of {given.patients} patients, planted AUROC {given.auc}, {given.repeats} repeats"
    )
    for (name, metric), found in rows.items():
        value, low, high = np.array(found).T
        null = 0.0 if metric == "auroc_difference" else given.auc
        print(
            f"{name:22} {metric:16} mean {value.mean():.3f} sd {value.std():.3f} width {np.mean(high - low):.3f}; "
            f"interval above {null}: {np.sum(low > null)}, below: {np.sum(high < null)}"
        )
    for name, values in p.items():
        print(f"permutation p of {name}: {np.sum(np.array(values) <= 0.05)} at most 0.05")
    print(f"{time.process_time() - start:.0f} CPU s")


if __name__ == "__main__":
    main()
