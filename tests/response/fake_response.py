"""Cross-validations and beat classes as their evaluators write them, with a known order; for tests only."""

import dataclasses
from typing import ClassVar

import numpy as np
import scipy.special
from fake_results import CHECKPOINT, TWO, row, write, write_input_spec

from ecgjax.data.build import build
from ecgjax.data.cohorts.base import Acquisition, Item, RejectedError
from ecgjax.data.cohorts.crt.columns import TARGETS
from ecgjax.data.identifiers import hash_identifier
from ecgjax.formats.recording import Recording
from ecgjax.response.crossvalidation.contenders import Scores
from ecgjax.response.crossvalidation.patients import Patients
from ecgjax.response.crossvalidation.run import CrossValidation

PATIENTS = 71
KEY = b"0123456789abcdef"
AREA = "ecg_qrs_area_uvs"
NOISE = {"ecg_qrs_ms": 2.5, AREA: 1.4, "logistic": 1.3}
SETTINGS = {"repeats": 4, "folds": 4, "inner": 2, "draws": 200, "permutations": 200}


@dataclasses.dataclass(frozen=True)
class Noisy:
    """Scores the truth under noise; probabilities too extreme by `slope`; some patients cannot be evaluated."""

    name: str
    truth: np.ndarray
    noise: float
    slope: float = 1.0
    rule: bool = False
    missing: tuple[int, ...] = ()

    def fit_predict(self, train, truth, test, *, inner, seed):
        """More noise from fewer training patients, so that there is something to learn."""
        own = np.random.default_rng([7, len(self.name)]).normal(size=len(self.truth))
        fresh = np.random.default_rng(seed).normal(size=len(self.truth))
        noise = self.noise * (1 + 4 / len(train))
        score = 2 * self.truth - 1 + noise * (0.9 * own + 0.4 * fresh)
        score[list(self.missing)] = np.nan
        probability = scipy.special.expit(self.slope * score)
        if self.rule:
            decision = np.where(np.isnan(score), np.nan, score > -0.8)
            nothing = np.full(len(test), np.nan)
            return Scores(decision[test], nothing, np.full(len(train), np.nan), decision[test])
        return Scores(score[test], probability[test], probability[train])


class LabelCohort:
    """The patients with noise for an ECG: responders are older, two have no response, one recording is rejected."""

    name = "crt"
    targets = TARGETS
    settings: ClassVar = {
        "response": "lvef5",
        "strict": True,
        "deaths": "nonresponder",
        "patients": PATIENTS + 3,
        "recordings": PATIENTS + 5,
        "died": 1,
        "disagreements": 2,
        "on_disagreement": "derived",
    }

    def items(self):
        """A recording a patient, a second one of the first."""
        numbers = [*range(PATIENTS + 3), 0]
        return [Item(f"p{number}", f"r{i}", "train") for i, number in enumerate(numbers)]

    def load(self, item):
        """The last patient's recording is damaged; the two before have no response."""
        number = int(item.subject[1:])
        if number == PATIENTS + 2:
            raise RejectedError("checksum")
        _, truth = patients()
        response = truth[number] if number < PATIENTS else np.nan
        values = {"response": response, "age": 60.0 + 10 * response, "female": float(number % 2)}
        if number % 10:
            values["nyha"] = 3.0
        noise = np.random.default_rng(number).normal(size=(12, 100))
        values = {name: float(value) for name, value in values.items()}
        return Acquisition(Recording(noise, 100.0), None, values)


def write_data(directory):
    """The prepared directory of the patients."""
    sizes = {"ecg_length": 100, "rate_hz": 100.0}
    build(
        LabelCohort(),
        directory,
        conditioning_ecg={},
        conditioning_cmr=None,
        key=KEY,
        progress=False,
        **sizes,
    )


def patients(subject=None):
    """Subjects and their truths; a little over half respond."""
    if subject is None:
        hashed = [hash_identifier(f"p{i}", key=KEY, kind="subject").hex() for i in range(PATIENTS)]
        subject = np.array(hashed)
    truth = (np.random.default_rng(3).permutation(len(subject)) < 0.55 * len(subject)).astype(np.float64)
    return Patients(subject, np.arange(len(subject)), {}, {}), truth


def write_run(workdir, contenders, *, subject=None, flip=0, permuted=False, **settings):
    """One cross-validation; `flip` gives that many patients the other outcome. `contenders` take the truth."""
    people, truth = patients(subject)
    truth[:flip] = 1 - truth[:flip]
    made = [contender(truth) for contender in contenders]
    if permuted:
        truth = np.random.default_rng(11).permutation(truth)
    found = CrossValidation(**{**SETTINGS, **settings}).run(people, truth, made)
    found.write(
        workdir,
        step=0,
        checkpoint=CHECKPOINT,
        objective="finetune",
        config={"name": "<b>probe</b>"},
        cohort="crt",
    )


def write_comparators(workdir, **more):
    """Measures, a guideline that cannot judge three patients, and a classical model."""
    contenders = [
        lambda truth: Noisy("guideline_esc_2021_strict", truth, 1.5, rule=True, missing=(1, 2, 3)),
        *(lambda truth, name=name, noise=noise: Noisy(name, truth, noise) for name, noise in NOISE.items()),
    ]
    write_run(workdir, contenders, **more)


def write_network(workdir, name, *, noise, **more):
    """One network."""
    write_run(workdir, [lambda truth: Noisy(name, truth, noise, slope=1.6)], **more)


def write_classes(workdir, *, leaky=False, seed=0):
    """Four beat classes with totals, and the majority class."""
    shift = 0.3 * leaky + 0.01 * seed
    rows, options = [], {"kind": "class", "half": 0.1, "subjects": 8}
    for source, (f1, accuracy) in {"prediction": (0.48, 0.88), "majority": (0.235, 0.89)}.items():
        more = shift if source == "prediction" else 0.0
        for metric, value in (("macro_f1", f1), ("balanced_accuracy", f1), ("accuracy", accuracy)):
            rows.append(row("all classes", metric, source, min(0.99, value + more), n=9000, **options))
        for name, value, n in (("N", 0.93, 8000), ("S", 0.15, 300), ("V", 0.7, 650), ("F", 0.1, 50)):
            for metric in ("sensitivity", "positive_predictivity", "f1"):
                at = min(0.99, value + more) if source == "prediction" else float(name == "N")
                rows.append(row(name, metric, source, at, n=n, **options))
    about = {"arrays": {"classes": np.array(list("NSVF"))}, "settings": {"cohort": "mitbih", "leaky": leaky}}
    write(workdir, "classes", rows=rows, objective="finetune", **about)


def write_grad_cam(workdir, *, leads=("MLII",), samples=256):
    """Two classes whose maps peak at different places, over images of 16 x 24; S has no `told_apart`."""
    time, frequency = (np.arange(24) - 12) / 8.0, np.arange(16) * 2.8
    count = len(leads)

    def blob(at_s, at_hz, more):
        shape = np.exp(-(((time - at_s) / 0.3) ** 2)) * np.exp(-(((frequency[:, None] - at_hz) / 6) ** 2))
        return np.broadcast_to(shape * more, (count, 16, 24)).astype(np.float32)

    beat = np.exp(-(((np.arange(samples) - samples // 2) / 18) ** 2))
    arrays = {
        "mean/V/positive": blob(0.0, 8.0, 1.0),
        "mean/V/negative": blob(0.0, 20.0, 0.4),
        "mean/S/positive": blob(-0.8, 5.0, 0.5),
        "mean/S/negative": np.full((count, 16, 24), np.nan, np.float32),
        "time_s": time,
        "frequency_hz": frequency,
        "example/target": np.array(["V", "S"]),
        "example/subject": TWO,
        "example/record": TWO,
        "example/signal_mv": np.stack([np.tile(beat, (1 if count == 1 else 12, 1))] * 2),
        "example/image": np.stack([blob(0.0, 3.0, 2.0) - 1, blob(0.0, 3.0, 2.0) - 1]),
        "example/map": np.stack([blob(0.0, 8.0, 1.0), blob(-0.8, 5.0, 1.0)]),
        "example/logit": np.array([1.2, -0.3]),
    }
    scalars = {"n": 90.0, "rate_hz": 360.0, "V/told_apart": 0.91, "S/told_apart": float("nan")}
    scalars |= {"V/peak_hz": 8.4, "V/peak_s": 0.0, "S/peak_hz": 5.6, "S/peak_s": -0.75}
    write(workdir, "grad_cam", scalars=scalars, arrays=arrays, objective="finetune")
    write_input_spec(workdir, leads=leads)


def write_all(root):
    """A root with every kind of result, and the spec that reads it."""
    write_comparators(root / "comparators")
    curve = {"curve": (0.3, 0.6), "curve_of": ("network",), "curve_repeats": 2}
    dealt = {"permuted_of": ("network",), "label_permutations": 3}
    write_network(root / "probe", "network", noise=0.95, **curve, **dealt)
    write_network(root / "random", "network", noise=1.6)
    write_network(root / "scratch", "network", noise=2.0, repeats=2)
    write_run(root / "permuted", [lambda truth: Noisy("network", truth, 1.0)], permuted=True)
    write_data(root / "data")
    for seed in range(3):
        write_classes(root / f"beats{seed}", seed=seed)
    write_classes(root / "beats_leaky", leaky=True)
    write_grad_cam(root / "beats0")
    area, probe = AREA, "MIT-BIH, probe"
    return {
        "title": "Response to resynchronisation <fake>",
        "lead": "Fake results of 71 patients.",
        "data": "data",
        "runs": [
            {"workdir": "comparators"},
            {"workdir": "probe", "names": {"network": probe}},
            {"workdir": "random", "names": {"network": "random encoder"}},
            {"workdir": "scratch", "names": {"network": "from scratch"}},
        ],
        "judged": probe,
        "against": [
            "guideline_esc_2021_strict",
            "ecg_qrs_ms",
            area,
            "logistic",
            "random encoder",
            "from scratch",
        ],
        "required": [area, "random encoder"],
        "shown": [probe, area, "logistic", "random encoder", "guideline_esc_2021_strict"],
        "permuted": [{"workdir": "permuted", "names": {"network": f"{probe}, permuted"}}],
        "pretraining": [
            {"name": "DS1 to DS2", "workdirs": [f"beats{seed}" for seed in range(3)]},
            {"name": "random beats", "workdirs": ["beats_leaky"]},
        ],
        "grad_cam": {"workdir": "beats0", "examples": 2},
        "draws": 200,
    }
