"""All contenders of a config judged on the patients of a data directory, to the end or to a signal."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import Float, Int
from ml_collections import ConfigDict
from tqdm import tqdm

import ecgjax
from ecgjax.core import config as configs
from ecgjax.core import runtime, trees
from ecgjax.core.files import absolute, write_text
from ecgjax.core.result_files import results_path
from ecgjax.core.text import aligned
from ecgjax.evaluators.base import Results
from ecgjax.objectives.encoders import located
from ecgjax.response import fold_config
from ecgjax.response.comparators.classical import Classical
from ecgjax.response.comparators.measures import SingleMeasure
from ecgjax.response.comparators.probe import EmbeddingProbe
from ecgjax.response.comparators.rules import Guideline
from ecgjax.response.crossvalidation.contenders import Contender
from ecgjax.response.crossvalidation.folds import check_size, given_folds
from ecgjax.response.crossvalidation.maps import described, out_of_fold_maps
from ecgjax.response.crossvalidation.patients import Patients, by_patient, refuse_duplicates
from ecgjax.response.crossvalidation.predictions import predictions_csv
from ecgjax.response.crossvalidation.run import NAME, CrossValidation
from ecgjax.response.fold_training import Network, TrainedInFolds
from ecgjax.response.kept_folds import Interrupted, Kept, open_workdir
from ecgjax.response.pool import Pool, open_pool
from ecgjax.runs import initial
from ecgjax.runs.assemble import Data, assemble, label_columns
from ecgjax.train.loop import Interrupt

CONTENDERS: Mapping[str, Callable[..., Contender]] = {
    "classical": Classical,
    "guideline": Guideline,
    "measure": SingleMeasure,
}
"""What `config.contenders` may name beside a network."""

_STEP = 0
"""The number that results carry: a cross-validation follows no training steps."""

_PERMUTATION_STREAM = 0x7065726D  # Keeps this draw apart from anything else that is seeded with the seed.

_SHOWN = ("auroc", "auroc_fold_mean", "auprc", "brier", "sensitivity", "specificity")
"""In the table that is printed; decisions are those of the rule, or of the threshold chosen within the folds."""


def crossvalidate(config: ConfigDict, workdir: epath.Path) -> int:
    """Runs all contenders of `config` to the end; the exit code says whether a signal came first."""
    config = configs.plain(config)
    trains = fold_config.check(config)
    config["data"]["directory"] = os.fspath(absolute(config["data"]["directory"]))
    settings = configs.call(CrossValidation, config["crossvalidation"], "config.crossvalidation")
    pool = open_pool(config["data"]["directory"])
    column = _response(pool, config["response"])
    _check_paced(pool, column)
    refuse_duplicates(pool.subject, pool.arrays["ecg"], what="the ECGs")
    patients, truth = _patients(pool, column, {})
    if config["labels"] == "permuted":
        truth = np.random.default_rng((config["seed"], _PERMUTATION_STREAM)).permutation(truth)
    settings, fold = _folds(config, settings, pool, patients, truth)
    contenders: list[Contender] = [
        configs.build(CONTENDERS, section, f"config.contenders.{name}", patients=patients)
        for name, section in config["contenders"].items()
    ]
    with Interrupt() as interrupt:
        network = None
        if trains:
            config = fold_config.completed(config, pool.manifest.input_spec)
            network = _network(config, pool, lambda: interrupt.received is not None)
        source = _source(network)
        open_workdir(workdir, {"config": config, "fingerprint": pool.manifest.fingerprint, "source": source})
        if results_path(workdir, NAME, _STEP).exists():
            runtime.say(f"{workdir} has its results already.")
            _say_table(Results.read(workdir, NAME, _STEP))
            return 0
        if network is not None:
            patients, contender = _of_network(config, network, patients, column, workdir)
            contenders.insert(0, contender)
        with tqdm(
            total=settings.fits(len(contenders)), desc=workdir.name, unit="fold", mininterval=1.0
        ) as bar:
            kept = [Kept(c, workdir, lambda: interrupt.received is not None, bar.update) for c in contenders]
            try:
                options = {"fold": fold, "target": config["response"], "told": runtime.say}
                results = settings.run(patients, truth, kept, **options)
                results = _with_maps(results, contenders, config, settings, patients, truth, fold, pool)
            except Interrupted:
                name = interrupt.received.name
                runtime.say(f"{name}: finished folds are kept; run the same command to go on.")
                return runtime.INTERRUPTED
    write_text(workdir / "predictions.csv", predictions_csv(results))
    path = results.write(
        workdir,
        step=_STEP,
        checkpoint=source,
        objective=config["objective"]["name"] if trains else "none",
        input_spec=pool.manifest.input_spec.to_json(),
        version=ecgjax.__version__,
        config=config,
        cohort=pool.manifest.cohort,
    )
    _say_table(results)
    runtime.say(f"{path}, {workdir}/predictions.csv: research use, not for the selection of patients.")
    return 0


def _response(pool: Pool, name: str) -> int:
    """The column of the response; raises where it is missing, no yes or no, or the same for everybody."""
    kinds = {column.target.name: column.target.kind for column in pool.manifest.targets}
    binary = [column for column, kind in kinds.items() if kind == "binary"]
    if name not in kinds:
        raise ValueError(
            f"config.response is {name!r}, no label of the data; choose from {', '.join(binary)}."
        )
    if kinds[name] != "binary":
        raise ValueError(
            f"config.response: {name} is a {kinds[name]} label; choose from {', '.join(binary)}."
        )
    column = list(kinds).index(name)
    values = pool.label[:, column]
    found = np.unique(values[~np.isnan(values)])
    if len(found) < 2:
        what = (
            f"{found[0]:g} for all {int(np.sum(values == found[0]))} recordings that have it"
            if len(found)
            else "missing everywhere"
        )
        raise ValueError(
            f"config.response: {name} is {what}; there is nothing to predict: choose another label."
        )
    return column


def _check_paced(pool: Pool, column: int) -> None:
    """Raises where a patient was paced already: the spikes tell that the outcome is past."""
    names = pool.manifest.target_names
    if "paced" not in names:
        return
    paced = (pool.label[:, names.index("paced")] == 1) & ~np.isnan(pool.label[:, column])
    if count := int(paced.sum()):
        raise ValueError(
            f"config.data.directory: {count} recordings are of paced patients, the first of patient "
            f"{pool.subject[paced][0]}; pacing shows when the ECG was taken. Prepare the cohort without them."
        )


def _patients(
    pool: Pool, column: int, features: Mapping[str, np.ndarray]
) -> tuple[Patients, Float[np.ndarray, " n"]]:
    """The patients whose response is known, with every other label as a column."""
    columns = {name: pool.label[:, i] for i, name in enumerate(pool.manifest.target_names) if i != column}
    return by_patient(pool.subject, pool.label[:, column], columns=columns, features=features)


def _folds(
    config: Mapping[str, Any],
    settings: CrossValidation,
    pool: Pool,
    patients: Patients,
    truth: Float[np.ndarray, " n"],
) -> tuple[CrossValidation, Int[np.ndarray, "repeat n"]]:
    """The fold of every patient: drawn, or the split that the data give it, which then are the settings' folds.

    Raises where a class is too small.
    """
    if config["split"] == "drawn":
        with located("config.crossvalidation"):
            possible = settings.possible(truth)
            if dropped := set(settings.curve) - set(possible.curve):
                runtime.say(
                    f"config.crossvalidation.curve: {', '.join(f'{x:g}' for x in sorted(dropped))} of the training "
                    f"patients are too few for {settings.inner} inner folds; the learning curve goes without."
                )
            return possible, possible.fold(truth)
    with located("config.split"):
        fold = given_folds(patients.patient, pool.split, truth)
        for number in np.unique(fold):
            check_size(truth[fold[0] != number], folds=settings.inner)
    return dataclasses.replace(settings, repeats=1, folds=len(np.unique(fold))), fold


def _network(config: Mapping[str, Any], pool: Pool, leave: Callable[[], bool]) -> Network:
    """The step and the first weights of the folds, on shapes alone but for what a source gives."""
    labels = label_columns(pool.manifest)
    run = assemble(config, Data(pool.manifest.input_spec, labels, len(pool)))
    sources = initial.open_sources(config, pool.manifest.input_spec, run.state, run.mesh)
    return Network(config, run, pool, sources, leave)


def _of_network(
    config: Mapping[str, Any], network: Network, patients: Patients, column: int, workdir: epath.Path
) -> tuple[Patients, Contender]:
    """The network as a contender, and the patients, with their embedding where a regression reads it."""
    state = network.first(workdir)
    if config["mode"] not in fold_config.FROZEN:
        return patients, TrainedInFolds(config["name"], network, patients.patient, column)
    made = network.predict(state, np.arange(len(network.pool)))
    patients, _ = _patients(network.pool, column, {"embedding": made["ecg/embedding"]})
    maps = made.get("ecg/maps")
    if maps is not None and maps.shape[1] * maps.shape[-1] == made["ecg/embedding"].shape[1]:
        maps = np.stack([maps[patients.records(number)].mean(0) for number in range(len(patients))])
    else:  # None, or leads are not side by side in the embedding.
        maps = None
    return patients, EmbeddingProbe(patients, "embedding", config["name"], maps)


def _with_maps(results, contenders, config, settings, patients, truth, fold, pool) -> Results:
    """The results with the maps of a frozen encoder of images, and where in them its leads and seconds are."""
    arrays, scalars = dict(results.arrays), dict(results.scalars)
    ecg = pool.manifest.input_spec.ecg
    for contender in contenders:
        if getattr(contender, "maps", None) is None:
            continue
        maps = out_of_fold_maps(contender, truth, fold, inner=settings.inner, seed=settings.seed)
        options = {"image": ecg.image, "rate_hz": ecg.rate_hz}
        found, told = described(contender.name, maps, truth, patients.subject, **options)
        leads = config["objective"]["encoder"].get("read") or range(1, maps.shape[1] + 1)
        arrays, scalars = (
            {**arrays, **found, "map|leads": np.array([str(lead) for lead in leads])},
            {**scalars, **told},
        )
    return dataclasses.replace(results, arrays=arrays, scalars=scalars)


def _source(network: Network | None) -> str:
    """Digest of the weights that a network starts from."""
    if network is None:
        return "none"
    if not network.sources:
        return "fresh weights"
    read = {
        f"{number}/{name}": leaf
        for number, source in enumerate(network.sources)
        for name, leaf in trees.flatten(source.trained.params).items()
        if not isinstance(leaf, jax.ShapeDtypeStruct)
    }
    return trees.digest(read)


def _say_table(results: Results) -> None:
    """The headline metrics of every contender with their intervals, a line each."""
    cells: dict[str, dict[str, str]] = {}
    for row in results.rows:
        metric = row.metric.removesuffix("@youden").removesuffix("@rule")
        if metric in _SHOWN:
            interval = "" if np.isnan(row.low) else f" [{row.low:.2f}, {row.high:.2f}]"
            cells.setdefault(row.input, {})[metric] = f"{row.value:.3f}{interval}"
    rows = ([name, *(mine.get(metric, "") for metric in _SHOWN)] for name, mine in cells.items())
    for line in aligned([["contender", *_SHOWN], *rows]):
        runtime.say(line)
