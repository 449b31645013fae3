"""Results as evaluators would write them, with known ordering; for tests only."""

import dataclasses
import json

import fake_results
import numpy as np
from fake_results import TWO, write, write_input_spec

PHENOTYPES = ("LVEDV", "LVESV", "LVEF", "LVM", "WT", "RVEDV", "RVEF")
CONDITIONS = ("LVH", "DCM", "MI", "LBBB", "AF")
CONTROLS = ("LBBB", "AF")
N = 300
NOISE = {"random": 2.4, "mdm": 2.0, "scratch": 1.5, "mmcl": 1.2, "permuted": 2.3, "hand_features": 1.0}


def target_row(target, source, value, **about):
    """A row as a probe of a phenotype or a condition has it."""
    kind, metric = ("binary", "auroc") if target in CONDITIONS else ("regression", "r2")
    return fake_results.row(target, metric, source, value, kind=kind, control=target in CONTROLS, **about)


def row(name, *workdirs):
    """A row of a report's spec: a workdir a seed."""
    return {"name": name, "workdirs": workdirs, "evaluator": "linear_probe", "input": "ecg/embedding"}


def write_probe(workdir, *, noise, seed, name="ecg/embedding", order=None, step=400):
    """One workdir with a linear probe whose predictions are the truth under noise."""
    generator = np.random.default_rng([1])
    truth = generator.normal(size=(N, 12)).astype(np.float32)
    truth[:, 7:] = truth[:, 7:] > 0.8
    shared = generator.normal(size=(N, 12))
    own = np.random.default_rng([2, seed]).normal(size=(N, 12))
    score = truth + noise * (0.8 * shared + 0.4 * own)
    record = np.array([f"{i:016x}" for i in range(N)], "U16")
    subject = np.array([f"{i // 2:016x}" for i in range(N)], "U16")
    order = np.arange(N) if order is None else order
    rows, arrays = [], {"subject": subject[order], "record": record[order]}
    for column, target in enumerate(PHENOTYPES + CONDITIONS):
        binary = target in CONDITIONS
        prediction = score[:, column]
        if not binary:  # The best linear use of a noisy feature.
            slope = np.cov(prediction, truth[:, column])[0, 1] / prediction.var()
            prediction = slope * (prediction - prediction.mean()) + truth[:, column].mean()
        rows.append(target_row(target, name, 0.0, n=N, subjects=N // 2))
        arrays[f"{name}|{target}|truth"] = truth[order, column]
        arrays[f"{name}|{target}|prediction"] = prediction[order].astype(np.float32)
    write(workdir, "linear_probe", rows=rows, arrays=arrays, objective="masked", step=step)
    (workdir / "config.json").write_text(json.dumps({"seed": seed, "note": "<script>alert(1)</script>"}))


def write_curve(workdir, *, start, end, ln_batch=None, steps=600):
    """A loss that falls from start to end."""
    workdir.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    extra = {} if ln_batch is None else {"ln_batch": ln_batch}
    lines = [{"step": 0, "time": 0.0, "val_loss": start}]
    for step in range(20, steps + 1, 20):
        level = end + (start - end) * np.exp(-4 * step / steps)
        lines.append({"step": step, "time": 1.0 * step, "loss": level + 0.01 * generator.normal(), **extra})
        if step % 200 == 0:
            lines.append({"step": step, "time": 1.0 * step, "val_loss": level + 0.05})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (workdir / "metrics.jsonl").write_text(text + '{"step": 620, "lo')  # Cut short by a kill.


def ecg_like(*, leads=12, seconds=2.5, rate_hz=100.0, seed=0):
    """Beats with P, QRS and T of a different size in every lead."""
    time = np.arange(int(seconds * rate_hz)) / rate_hz
    phase = (time * 1.2) % 1
    generator = np.random.default_rng(seed)
    size = generator.normal(size=(leads, 3)) * [0.05, 0.5, 0.12] + [0.1, 0.6, 0.2]
    waves = np.stack(
        [np.exp(-(((phase - c) / w) ** 2) / 2) for c, w in ((0.2, 0.03), (0.38, 0.015), (0.65, 0.06))]
    )
    return (size @ waves + 0.01 * generator.normal(size=(leads, len(time)))).astype(np.float32)


def write_reconstruction(workdir):
    """Two ECGs, every other patch of 25 samples hidden."""
    original = np.stack([ecg_like(seed=seed) for seed in range(2)])
    hidden = np.zeros(original.shape, bool)
    for patch in range(0, original.shape[2], 50):
        hidden[:, ::2, patch : patch + 25] = True
        hidden[:, 1::2, patch + 25 : patch + 50] = True
    noise = 0.04 * np.random.default_rng(0).normal(size=original.shape)
    arrays = {
        "original_mv": original,
        "reconstruction_mv": (0.85 * original + noise).astype(np.float32),
        "hidden": hidden,
        "subject": TWO,
        "record": TWO,
    }
    scalars = {
        "mse_hidden/model": 0.21,
        "mse_hidden/zero": 1.02,
        "mse_hidden/visible_mean": 0.98,
        "ncc_hidden/model": 0.87,
        "n": 300.0,
        "rate_hz": 100.0,
    }
    write(workdir, "reconstruction", scalars=scalars, arrays=arrays, objective="masked")
    write_input_spec(workdir)


def write_retrieval(workdir):
    """Recall above chance in both directions."""
    scalars = {"n": 300.0, "subjects": 150.0, "chance/median_rank": 150.5}
    for k, value in ((1, 0.03), (5, 0.11), (10, 0.19)):
        scalars[f"chance/recall@{k}"] = k / 300
        for way in ("ecg_to_cmr", "cmr_to_ecg"):
            name = f"{way}/recall@{k}"
            scalars |= {name: value, f"{name}/low": value - 0.02, f"{name}/high": value + 0.02}
    scalars |= {"ecg_to_cmr/median_rank": 41.0, "cmr_to_ecg/median_rank": 44.5}
    write(workdir, "retrieval", scalars=scalars, arrays={"rank": np.ones(3)}, objective="cross_modal")


def write_attainable(path):
    """The bound, from no checkpoint."""
    values = dict.fromkeys(PHENOTYPES, 0.62) | dict.fromkeys(CONDITIONS, 0.95)
    size = {"half": 0.01, "n": 10000, "subjects": 10000}
    rows = [target_row(target, "attainable", value, **size) for target, value in values.items()]
    path.write_text(
        json.dumps({"rows": [dataclasses.asdict(row) for row in rows], "settings": {"draws": 40000}})
    )


def write_all(root, *, seeds=3):
    """A root with every kind of result, and the spec that reads it."""
    for name, noise in NOISE.items():
        for seed in range(seeds):
            write_probe(root / f"seed{seed}" / name, noise=noise + 0.08 * seed, seed=seed)
    for seed in range(seeds):
        write_curve(root / f"seed{seed}" / "mdm", start=1.8, end=0.2 + 0.02 * seed)
        write_curve(
            root / f"seed{seed}" / "mmcl", start=4.2, end=3.4 + 0.1 * seed, ln_batch=float(np.log(64))
        )
        write_curve(root / f"seed{seed}" / "permuted", start=4.2, end=4.155, ln_batch=float(np.log(64)))
    write_reconstruction(root / "seed0" / "mdm")
    write_retrieval(root / "seed0" / "mmcl")
    write_attainable(root / "attainable.json")

    def workdirs(name):
        return [f"seed{seed}/{name}" for seed in range(seeds)]

    return {
        "title": "Does CMR teach the ECG encoder? Synthetic cohort <1>",
        "lead": "One ECG encoder, four ways to train it, one linear probe; a synthetic cohort of 300 test records.",
        "rows": [
            {"name": "attainable", "file": "attainable.json", "reference": True},
            row("hand features", *workdirs("hand_features")),
            row("random init", *workdirs("random")),
            row("MDM", *workdirs("mdm")),
            row("MMCL from scratch", *workdirs("scratch")),
            row("MMCL from MDM", *workdirs("mmcl")),
            row("MMCL on permuted pairs", *workdirs("permuted")),
            row("supervised ECG", *workdirs("never_trained")),
        ],
        "claims": [
            {"lower": "MDM", "higher": "MMCL from MDM", "metric": "r2"},
            {"lower": "MDM", "higher": "MMCL from MDM", "metric": "auroc"},
            {"lower": "hand features", "higher": "MMCL from MDM", "metric": "r2"},
            {
                "lower": "MMCL on permuted pairs",
                "higher": "MDM",
                "metric": "r2",
                "relation": "<=",
                "margin": 0.01,
            },
            {"lower": "MDM", "higher": "supervised ECG", "metric": "r2"},
        ],
        "curves": [
            {"name": "MDM", "workdirs": workdirs("mdm")},
            {"name": "MMCL from MDM", "workdirs": workdirs("mmcl")},
            {"name": "MMCL on permuted pairs", "workdirs": workdirs("permuted")},
        ],
        "reconstruction": {"workdir": "seed0/mdm"},
        "retrieval": [{"name": "MMCL from MDM", "workdir": "seed0/mmcl"}],
        "draws": 300,
    }


def write_localisation(workdir, *, softmax=False):
    """Maps of one example whose patches span two leads."""
    generator = np.random.default_rng(3)
    attention = generator.random((1, 2, 6, 5))
    arrays = {
        "ecg_mv": ecg_like()[None],
        "cmr": generator.random((1, 16, 16, 3)).astype(np.float32),
        "attention/map": attention / attention.sum((2, 3), keepdims=True),
        **{
            f"{name}/map": generator.random((1, *shape)) / (np.prod(shape[-2:]) if softmax else 1)
            for name, shape in (("ecg", (6, 10)), ("cmr", (4, 4)), ("pairwise", (10, 4, 4)))
        },
        "subject": TWO[:1],
        "record": TWO[:1],
    }
    scalars = {"n": 96.0, "rate_hz": 100.0, "cmr/region": 0.4, "chance/region": 0.36}
    for half in ("ecg", "cmr"):
        scalars |= {f"{half}/entropy": 0.98, f"{half}/entropy_other": 0.99, f"{half}/shared_variance": 0.2}
        name = f"{half}/partner_auc"
        scalars |= {name: 0.61, f"{name}/low": 0.55, f"{name}/high": 0.66}
    settings = {"temperature": 0.6, "softmax": softmax}
    about = {"scalars": scalars, "arrays": arrays, "settings": settings}
    write(workdir, "localisation", objective="cross_modal", **about)
    write_input_spec(workdir, frames=("ES", "mid", "ED"))
