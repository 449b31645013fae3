"""What do the times between beats tell of their classes, with no look at the ECG?

  ECGJAX_DATA=DIR python tests/benchmarks/intervals.py              # seconds; reads DIR/mitbih

Logistic regression on the three features of `objectives.rhythm`, trained and tested on the people of
configs/crt_beats.py:aami, N thinned and classes weighted as there. The images have to be worth more than this.
"""

import os
import pathlib
import sys

os.environ["JAX_PLATFORMS"] = "cpu"
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import numpy as np
from sklearn.linear_model import LogisticRegression

from ecgjax.data.cohorts.mitbih import MitbihCohort
from ecgjax.data.cohorts.mitbih_beats import CLASSES, read_beats
from ecgjax.metrics.multiclass import score_classes
from ecgjax.objectives.rhythm import rhythm_features

NAMES = tuple(CLASSES["aami"])
KEPT = 0.2  # Of the normal beats trained on.


def main() -> int:
    """Prints the table."""
    directory = pathlib.Path(os.environ.get("ECGJAX_DATA", "")) / "mitbih"
    if not (directory / "100.hea").is_file():
        print(f"no records in {directory}; set ECGJAX_DATA to the directory that holds mitbih")
        return 0
    cohort = MitbihCohort(str(directory))
    x, truth, person = features(cohort, directory, "train")
    kept = (truth != 0) | (np.random.default_rng(0).random(len(truth)) < KEPT)
    weight = dict(enumerate(np.bincount(truth[kept]) ** -0.5))
    model = LogisticRegression(class_weight=weight, max_iter=1000).fit(x[kept], truth[kept])
    x, truth, person = features(cohort, directory, "test")
    found = score_classes(truth, model.predict(x), person, classes=len(NAMES), draws=1000, seed=0)
    print("| class | beats | sensitivity | positive predictivity | F1 |\n|---|---|---|---|---|")
    for i, name in enumerate(NAMES):
        cells = (f"{found.by_class[m][i].value:.3f}" for m in ("sensitivity", "positive_predictivity", "f1"))
        print(f"| {name} | {int(np.sum(truth == i))} | {' | '.join(cells)} |")
    for name, value in found.overall.items():
        print(f"{name} {value.value:.3f} [{value.low:.3f}, {value.high:.3f}]")
    print(f"{len(truth)} beats of {len(set(person))} people")
    return 0


def features(cohort: MitbihCohort, directory: pathlib.Path, split: str):
    """Features, class and person of every beat of a split."""
    class_of = {symbol: i for i, name in enumerate(NAMES) for symbol in CLASSES["aami"][name]}
    read, rows = {}, []
    for item in cohort.items():
        if item.split == split:
            record, _, sample = item.record.partition("/")
            if record not in read:
                beats = read_beats(directory / record)
                read[record] = beats, {str(at): i for i, at in enumerate(beats.samples.tolist())}
            beats, place = read[record]
            i = place[sample]
            rows.append((beats.rr_s[i], class_of[beats.symbols[i]], item.subject))
    rr, truth, person = zip(*rows, strict=True)
    return np.asarray(rhythm_features(np.array(rr))), np.array(truth), np.array(person)


if __name__ == "__main__":
    sys.exit(main())
