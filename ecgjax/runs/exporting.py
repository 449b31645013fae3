"""The embeddings of a checkpoint as files, and maps of them."""

from collections.abc import Sequence

from etils import epath

from ecgjax.core import runtime, trees
from ecgjax.core.files import write_bytes
from ecgjax.data.manifest import read_manifest
from ecgjax.evaluators import export as embeddings
from ecgjax.reports.embedding_map import embedding_map, find_label
from ecgjax.reports.page import png
from ecgjax.runs import opening
from ecgjax.train import checkpoint


def export(
    workdir: epath.Path,
    directory: epath.Path,
    *,
    data: str | None = None,
    step: str = "last",
    splits: Sequence[str] = ("train", "val", "test"),
    keys: Sequence[str] | None = None,
    crops: int = 4,
    plot: str | None = None,
) -> None:
    """Writes predictions at `keys`, by default the embedding of every modality, of the examples of `splits`.

    `data` is by default the directory that the run was trained on. `plot` names the label by which to colour a map of
    every key.
    """
    trained = opening.open_checkpoint(workdir, checkpoint.choose_step(workdir, step))
    opened = opening.splits_for(trained, data, crops=crops)
    keys = tuple(keys or [f"{modality}/embedding" for modality in trained.modalities])
    known = read_manifest(data or trained.meta["config"]["data"]["directory"]).splits
    unknown = [name for name in splits if name not in known or not known[name].examples]
    if unknown:
        raise ValueError(
            f"--splits: {unknown} hold no examples; choose from {[n for n in known if known[n].examples]}."
        )
    # Before the work, so that a misspelt label costs nothing.
    column = None if plot is None else find_label(plot, [t.name for t in opened.targets])
    table = embeddings.collect(opening.predictor(trained, keys), opened, keys=keys, names=splits)
    paths = embeddings.write(
        directory,
        table,
        targets=opened.targets,
        input_spec=trained.spec.to_json(),
        checkpoint=trees.digest(trained.params),
        step=trained.step,
        config=trained.meta["config"],
        crops=crops,
    )
    runtime.say(f"{len(table['subject'])} embeddings {list(keys)}: {paths[0]}, {paths[1]}")
    for key in keys if column is not None else ():
        target = opened.targets[column]
        figure = embedding_map(
            table[key],
            table["label"][:, column],
            label_name=target.name,
            kind=target.kind,
            unit=target.unit,
            title=f"{key}, {' + '.join(splits)}, step {trained.step}",
        )
        path = directory / f"{key.replace('/', '_')}-{target.name}.png"
        write_bytes(path, png(figure))
        runtime.say(f"map of {key}: {path}")
