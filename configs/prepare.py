"""Data sets that `ecgjax prepare` can make.

    python -m ecgjax prepare --config=configs/prepare.py:synthetic --directory=DATA

`synthetic`  the embedded paired cohort at the size of launch/local.sh: 100 Hz ECG, 32 px CMR
`tiny`       the same at the size of a test
`paper`      the synthetic cohort at the paper's sizes: 500 Hz, 10 s, 210 px
`ptbxl`      PTB-XL at 100 Hz; set config.cohort.directory
`ptbxl500`   PTB-XL at 500 Hz, conditioned as in the paper
`mitbih`     beats of the MIT-BIH Arrhythmia Database, AAMI classes, DS1 against DS2, images of 64 x 64; set
             config.cohort.directory
`mitbih_bbb`      the same with bundle branch blocks as classes of their own
`mitbih_short`    AAMI classes, images of short windows for the timing of the QRS: 32 frequencies x 128 times
`mitbih_256`      AAMI classes, images of 256 x 256
`mitbih_lab2020`  five classes and a split that LEAKS, beats drawn at random: for comparison with papers that did so
`synthetic_beats`       beats of embedded Holter recordings, MIT-BIH's classes with bundle branch block, 360 Hz
`tiny_synthetic_beats`  the same at the size of a test
`synthetic_crt`         12-lead ECGs of embedded patients before resynchronisation, whose response has a known best AUC;
                        give --like=WORKDIR of the run whose encoder will read them, or config.ecg.image.mean and std
`synthetic_crt_null`    the same ECGs, the response drawn by itself: every AUC must cover 0.5
`synthetic_crt_vit100`  as synthetic_crt for an encoder trained on `synthetic` or `ptbxl`: 100 Hz, no image
`tiny_synthetic_crt`    as synthetic_crt at the size of a test
`crt`        12-lead recordings and a table of who responded to resynchronisation, for an encoder of time-frequency
             images: set config.cohort.table, and --like=WORKDIR of the encoder's run
`crt_vit100` the same for an encoder trained on `synthetic` or `ptbxl`: 100 Hz, no image
"""

from ml_collections import ConfigDict, config_dict

# Asymmetric least squares at another rate: the same cutoff needs lambda to grow with rate^4.
_LAMBDA_500HZ = 1e7
_LAMBDA_100HZ = 1e7 * (100 / 500) ** 4

IMAGES = {
    "default": {"span": 1024, "win": 128, "hop": 16, "n_fft": 512, "bins": 64, "frames": 64},
    "short": {"span": 1024, "win": 64, "hop": 8, "n_fft": 256, "bins": 32, "frames": 128},
    "large": {"span": 1024, "win": 128, "hop": 4, "n_fft": 2048, "bins": 256, "frames": 256},
}
"""Of 2.84 s at 360 Hz, and the frequencies up to 44 Hz each, which a band-pass of 0.5 to 40 Hz leaves.

`short` halves window (178 ms) and hop (22 ms), for the timing of the QRS complex, at as many pixels as `default`: 256
points have 129 frequencies, of which 32 lie in that band. `large` is `default` on a grid four times as fine, for
networks that expect 256 x 256: interpolated, it holds no more than `default`.
"""


def get_config(arg: str = "synthetic") -> ConfigDict:
    recipes = {
        "synthetic": _synthetic,
        "tiny": _tiny,
        "paper": _paper,
        "ptbxl": _ptbxl,
        "ptbxl500": _ptbxl500,
        "mitbih": _mitbih,
        "mitbih_bbb": _mitbih_bbb,
        "mitbih_short": _mitbih_short,
        "mitbih_256": _mitbih_256,
        "mitbih_lab2020": _mitbih_lab2020,
        "synthetic_beats": _synthetic_beats,
        "tiny_synthetic_beats": _tiny_synthetic_beats,
        "synthetic_crt": _synthetic_crt,
        "synthetic_crt_null": _synthetic_crt_null,
        "synthetic_crt_vit100": _synthetic_crt_vit100,
        "tiny_synthetic_crt": _tiny_synthetic_crt,
        "crt": _crt,
        "crt_vit100": _crt_vit100,
    }
    if arg not in recipes:
        raise ValueError(f"configs/prepare.py:{arg}: unknown; choose from {', '.join(recipes)}.")
    return recipes[arg]()


def _synthetic() -> ConfigDict:
    # No 4-sigma clip: it flattens R and S in just the leads that carry mass and R progression.
    return ConfigDict(
        {
            "cohort": {
                "name": "synthetic",
                "train": 8000,
                "val": 500,
                "test": 1000,
                "seed": 0,
                "strength": 1.0,
                "rate_hz": 100.0,
                "image_size": 64,
                "damage": 0.0,
            },
            "ecg": _ecg(rate_hz=100.0, length=1000, baseline_lambda=_LAMBDA_100HZ, clip_sigma=None),
            "cmr": _cmr(size=32, pixel_mm=140 / 32, min_slices=1),
            "examples_per_shard": 512,
            "attainable": {"subjects": 40000},
        }
    )


def _tiny() -> ConfigDict:
    config = _synthetic()
    config.cohort.update({"train": 64, "val": 32, "test": 48})
    config.examples_per_shard = 16
    config.attainable = None
    return config


def _paper() -> ConfigDict:
    config = _synthetic()
    config.cohort.update({"rate_hz": 500.0, "image_size": 210})
    config.ecg = _ecg(rate_hz=500.0, length=5000, baseline_lambda=_LAMBDA_500HZ, clip_sigma=4.0)
    config.cmr = _cmr(size=210, pixel_mm=1.8, min_slices=1)
    return config


def _ptbxl() -> ConfigDict:
    return ConfigDict(
        {
            "cohort": {
                "name": "ptbxl",
                "directory": config_dict.placeholder(str),
                "rate_hz": 100,
                "labels": "superdiagnostic",
                "split": "strat_fold",
                "fractions": (0.6, 0.15, 0.25),  # Of patients, where split is "patient".
            },
            "ecg": _ecg(rate_hz=100.0, length=1000, baseline_lambda=_LAMBDA_100HZ, clip_sigma=None),
            "cmr": None,
            "examples_per_shard": 512,
            "attainable": None,
        }
    )


def _ptbxl500() -> ConfigDict:
    config = _ptbxl()
    config.cohort.rate_hz = 500
    config.ecg = _ecg(rate_hz=500.0, length=5000, baseline_lambda=_LAMBDA_500HZ, clip_sigma=4.0)
    return config


def _mitbih() -> ConfigDict:
    return ConfigDict(
        {
            "cohort": {
                "name": "mitbih",
                "directory": config_dict.placeholder(str),
                "lead": "MLII",
                "labels": "aami",
                "protocol": "ds1ds2",
                # Whole records of DS1 with S, V and F; F-rich 208 and all bundle branch blocks stay in train.
                "validation": ("203", "220", "223"),
                "same_person": "drop_201",
                "folds": 5,  # Where protocol is "folds".
                "fold": 0,
                "fractions": (0.7, 0.1, 0.2),  # Of beats, where the protocol draws them at random.
                "seed": 0,
                "paced": False,
                "records": (),  # All that are there.
            },
            "ecg": _beat_ecg(),
            "cmr": None,
            "examples_per_shard": 2048,
            "attainable": None,
        }
    )


def _mitbih_bbb() -> ConfigDict:
    config = _mitbih()
    config.cohort.labels = "bbb"
    config.cohort.validation = ("118", "207", "223")  # One of two people with LBBB, one of two with RBBB.
    return config


def _mitbih_short() -> ConfigDict:
    config = _mitbih()
    config.ecg = _beat_ecg("short")
    return config


def _mitbih_256() -> ConfigDict:
    config = _mitbih()
    config.ecg = _beat_ecg("large")
    return config


def _mitbih_lab2020() -> ConfigDict:
    config = _mitbih()
    config.cohort.update({"labels": "lab2020", "protocol": "lab2020-leaky", "paced": True})
    return config


def _synthetic_beats() -> ConfigDict:
    return ConfigDict(
        {
            "cohort": {
                "name": "synthetic_beats",
                "train": 40,  # Persons.
                "val": 8,
                "test": 16,
                "beats": 100,
                "seed": 0,
                "labels": "bbb",
                "rate_hz": 360.0,
            },
            "ecg": _beat_ecg(),
            "cmr": None,
            "examples_per_shard": 800,
            "attainable": None,
        }
    )


def _tiny_synthetic_beats() -> ConfigDict:
    config = _synthetic_beats()
    config.cohort.update({"train": 6, "val": 3, "test": 3, "beats": 12})
    config.examples_per_shard = 36
    return config


def _synthetic_crt() -> ConfigDict:
    return ConfigDict(
        {
            "cohort": {
                "name": "synthetic_crt",
                "patients": 200,
                "records": 1,  # ECGs a patient.
                "auc": 0.80,
                "prevalence": 0.55,
                "null": False,
                "missing": 0.03,
                "deaths": 0.06,
                "seed": 0,
                "rate_hz": 500.0,
                "seconds": 10.0,
            },
            "ecg": _crt_ecg(),
            "cmr": None,
            "examples_per_shard": 64,
            "attainable": None,
        }
    )


def _synthetic_crt_null() -> ConfigDict:
    config = _synthetic_crt()
    config.cohort.null = True
    return config


def _synthetic_crt_vit100() -> ConfigDict:
    config = _synthetic_crt()
    config.ecg = _crt_vit100().ecg
    return config


def _tiny_synthetic_crt() -> ConfigDict:
    config = _synthetic_crt()
    config.cohort.patients = 24
    config.examples_per_shard = 12
    return config


def _crt() -> ConfigDict:
    return ConfigDict(
        {
            "cohort": {
                "name": "crt",
                "table": config_dict.placeholder(str),
                "directory": config_dict.placeholder(str),  # Of the recordings, where not beside the table.
                "response": "lvesv15",  # lvef5, super, clinical; given where the table's column is final.
                "strict": config_dict.placeholder(bool),  # Of lvef5: True for more than 5 points.
                "deaths": "nonresponder",  # excluded
                "on_disagreement": "refuse",  # given, derived
                "inclusion": config_dict.placeholder(str),  # In words, for the report: who is in the table.
                "ignore": (),  # Columns of the table to pass over.
                "verify_checksums": True,  # False where the program that wrote the recordings got their sums wrong.
            },
            "ecg": _crt_ecg(),
            "cmr": None,
            "examples_per_shard": 512,
            "attainable": None,
        }
    )


def _crt_vit100() -> ConfigDict:
    config = _crt()
    config.ecg = _ecg(rate_hz=100.0, length=1000, baseline_lambda=_LAMBDA_100HZ, clip_sigma=None)
    return config


def _crt_ecg() -> ConfigDict:
    """Whole recordings of 10 s, conditioned as the beats that their encoder was trained on."""
    ecg = _beat_ecg()
    ecg.update({"leads": (), "length": 3600, "window": "start", "beats": 32})
    return ecg


def _beat_ecg(image: str = "default") -> ConfigDict:
    """Windows of 2.84 s at 360 Hz round the R peak of lead MLII, with their image.

    The default limits of quality hold: outside six windows of record 116 at the rail, no window of MIT-BIH holds one
    value for more than 10 of its samples.
    """
    ecg = _ecg(rate_hz=360.0, length=1024, baseline_lambda=None, clip_sigma=None)
    ecg.leads = ("MLII",)
    ecg.band_hz = (0.5, 40.0)
    ecg.window = "beat"
    # Mean and deviation are measured over the train split where they are not given.
    statistics = {"mean": config_dict.placeholder(float), "std": config_dict.placeholder(float)}
    ecg.image = ConfigDict({**IMAGES[image], "log_eps": 1e-3, **statistics})
    ecg.conditioning.normalise = "range"
    return ecg


def _ecg(
    *, rate_hz: float, length: int, baseline_lambda: float | None, clip_sigma: float | None
) -> ConfigDict:
    conditioning = ConfigDict(
        {
            "baseline_lambda": config_dict.placeholder(float),
            "clip_sigma": config_dict.placeholder(float),
            "normalise": "group",
        }
    )
    conditioning.update({"baseline_lambda": baseline_lambda, "clip_sigma": clip_sigma})
    # `quality` holds limits beyond which a record is rejected; its defaults are those of signals.ecg.check.
    return ConfigDict(
        {
            "leads": (),  # All twelve.
            "rate_hz": rate_hz,
            "length": length,
            "band_hz": config_dict.placeholder(tuple),  # Corners of a band-pass before all else.
            "window": "start",  # "beat" where the cohort's items are beats.
            "beats": 0,  # R peaks stored beside a recording.
            # Time-frequency image that models make of each lead.
            "image": config_dict.placeholder(ConfigDict),
            "conditioning": conditioning,
            "quality": {},
        }
    )


def _cmr(*, size: int, pixel_mm: float, min_slices: int) -> ConfigDict:
    return ConfigDict(
        {"height": size, "width": size, "pixel_mm": pixel_mm, "conditioning": {"min_slices": min_slices}}
    )
