"""Reports that `ecgjax report` can make of a directory of runs.

    python -m ecgjax report --config=configs/report.py:synthetic,3 --root=RUNS

`synthetic`    the table of launch/local.sh; `synthetic,3` for three seeds
`ptbxl`        the table of launch/ptbxl.sh
`crt`          response to resynchronisation, by the runs of launch/crt.sh: comparators, what an encoder of beats
               brings, verdict and model card; `crt,5` for five seeds of the beats run
`crt_vit`      the same with the ECG transformer of a masked or cross-modal run beside it
"""

from ml_collections import ConfigDict

_FEW = "-1500_labels"  # Probes of the demo; see configs/common.py.


def get_config(arg: str = "synthetic") -> ConfigDict:
    name, _, seeds = arg.partition(",")
    recipes = {"synthetic": _synthetic, "ptbxl": _ptbxl, "crt": _crt, "crt_vit": _crt_vit}
    if name not in recipes:
        raise ValueError(f"configs/report.py:{arg}: unknown; choose from {', '.join(recipes)}.")
    return recipes[name](int(seeds or 1))


def _row(
    name: str, run: str, seeds: int, *, evaluator: str, source: str = "ecg/embedding", step="last"
) -> dict:
    workdirs = tuple(f"seed{seed}/{run}" for seed in range(seeds))
    return {"name": name, "workdirs": workdirs, "evaluator": evaluator, "input": source, "step": step}


def _synthetic(seeds: int) -> ConfigDict:
    probe = {"evaluator": f"linear_probe{_FEW}"}
    rows = (
        {"name": "attainable", "file": "data/attainable.json", "reference": True},
        _row("CMR input", "supervised_cmr", seeds, source="cmr/embedding", **probe),
        _row("supervised ECG", "supervised_ecg", seeds, **probe),
        _row("hand features", "mdm", 1, source="hand_features", evaluator=f"baselines{_FEW}"),
        _row("random init", "mdm", seeds, step=0, **probe),
        _row("MDM", "mdm", seeds, **probe),
        _row("MMCL from scratch", "mmcl_scratch", seeds, **probe),
        _row("MMCL from MDM", "mmcl", seeds, **probe),
        _row("MMCL permuted pairs", "mmcl_permuted", seeds, **probe),
    )
    claims = tuple(
        {"lower": lower, "higher": higher, "metric": metric, "relation": relation, "margin": margin}
        for metric, margin in (("r2", 0.01), ("auroc", 0.01))
        for lower, higher, relation, margin in (
            ("MDM", "MMCL from MDM", "<", 0.0),
            ("random init", "MMCL from MDM", "<", 0.0),
            ("MMCL permuted pairs", "MDM", "<=", margin),
            ("random init", "MDM", "<", 0.0),
            ("hand features", "MMCL from MDM", "<", 0.0),
            ("MMCL from scratch", "MMCL from MDM", "<", 0.0),
        )
    )
    runs = ("mdm", "mmcl_scratch", "mmcl", "mmcl_permuted", "supervised_ecg", "supervised_cmr")
    curves = tuple(
        {
            "name": run,
            "workdirs": tuple(f"seed{seed}/{run}" for seed in range(seeds)),
            "control": run == "mmcl_permuted",
        }
        for run in runs
    )
    return ConfigDict(
        {
            "title": "ecgjax on the synthetic ECG-CMR cohort",
            "lead": "What a linear probe reads from each encoder about the heart behind an ECG.",
            "rows": rows,
            "claims": claims,
            "curves": curves,
            "reconstruction": {"workdir": "seed0/mdm", "examples": 2},
            "retrieval": ({"name": "MMCL from MDM", "workdir": "seed0/mmcl"},),
            "localisation": {"workdir": "seed0/mmcl", "examples": 1},
        }
    )


def _ptbxl(seeds: int) -> ConfigDict:
    probe, baselines = {"evaluator": "linear_probe"}, {"evaluator": "baselines"}
    rows = (
        _row("mean", "mdm", 1, source="mean", **baselines),
        _row("heart rate + spectrum", "mdm", 1, source="spectral_features", **baselines),
        _row("hand features", "mdm", 1, source="hand_features", **baselines),
        _row("random init", "mdm", seeds, step=0, **probe),
        _row("MDM", "mdm", seeds, **probe),
    )
    return ConfigDict(
        {
            "title": "ecgjax on PTB-XL",
            "lead": "Diagnoses read by a linear probe; patients of the test folds were never seen.",
            "rows": rows,
            "claims": (
                {"lower": "random init", "higher": "MDM", "metric": "auroc"},
                {"lower": "heart rate + spectrum", "higher": "MDM", "metric": "auroc"},
            ),
            "curves": ({"name": "mdm", "workdirs": tuple(f"seed{s}/mdm" for s in range(seeds))},),
            "reconstruction": {"workdir": "seed0/mdm", "examples": 2},
        }
    )


_CRT_MODES = ("probe", "random", "partial", "full", "scratch")
_QRS_AREA, _QRS_MS, _GUIDELINE = "QRS area", "QRS duration", "ESC 2021, class I"
_GUIDELINES = {"accf_aha_hrs_2012": "ACCF/AHA/HRS 2012", "esc_2021": "ESC 2021", "hrs_2023": "HRS 2023"}
_COMPARATORS = {
    **{
        f"guideline_{name}_{rule}": f"{title}, {what}"
        for name, title in _GUIDELINES.items()
        for rule, what in (("strict", "class I"), ("lenient", "class I or IIa"))
    },
    "qrs_ms": "QRS duration, clinic's",
    "ecg_qrs_ms": _QRS_MS,
    "ecg_qrs_area_uvs": _QRS_AREA,
    "ecg_axis_deg": "axis",
    "ecg_notched_leads": "notched leads",
    "lbbb": "LBBB, clinic's",
    "ecg_lbbb_strauss": "LBBB, Strauss",
    "ecg_lbbb_aha": "LBBB, AHA 2009",
    "ecg_lbbb_esc": "LBBB, ESC 2013",
    "logistic": "logistic",
    "svm": "SVM",
    "random_forest": "random forest",
    "gradient_boosting": "gradient boosting",
}
"""How contenders of crt_response.py:comparators are shown, in this order."""


def _crt(seeds: int) -> ConfigDict:
    names = tuple(_COMPARATORS.items())  # Pairs: a ConfigDict would sort them.
    return ConfigDict(
        {
            "title": "Response to cardiac resynchronisation from the ECG",
            "lead": "Whether an encoder pre-trained on single beats of other people tells who will respond, against "
            "guidelines, measures, classical models and untrained encoders, on the same patients and folds.",
            "data": "crt_data",
            "response": "response",
            "runs": (
                {"workdir": "crt/comparators", "names": names},
                *({"workdir": f"crt/{mode}"} for mode in _CRT_MODES),
            ),
            "judged": "probe",
            "against": (_GUIDELINE, _QRS_MS, _QRS_AREA, "logistic", "random", "scratch", "partial", "full"),
            "required": (_QRS_AREA, "random"),
            "shown": ("probe", _QRS_AREA, _QRS_MS, "logistic", "random", _GUIDELINE),
            "permuted": ({"workdir": "crt/permuted"}, {"workdir": "crt/null"}),
            "pretraining": (
                {"name": "beats", "workdirs": tuple(f"seed{seed}/beats" for seed in range(seeds))},
                {"name": "beats dealt at random", "workdirs": ("seed0/beats_leaky",), "optional": True},
            ),
            "grad_cam": {"workdir": "seed0/beats", "examples": 3},
            "draws": 2000,
            "seed": 0,
        }
    )


def _crt_vit(seeds: int) -> ConfigDict:
    config = _crt(seeds)
    config.runs = (*config.runs, *({"workdir": f"crt/vit_{mode}"} for mode in ("probe", "random")))
    config.against = (*config.against, "vit_probe", "vit_random")
    config.shown = (*config.shown[:4], "random", "vit_probe")
    return config
