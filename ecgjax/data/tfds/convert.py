"""From a prepared data directory to one that `tfds.data_source` reads."""

from etils import epath


def build_tfds(prepared: epath.PathLike, data_dir: epath.PathLike) -> epath.Path:
    """Writes the examples of `prepared` below `data_dir` and returns the directory of the dataset version.

    Read it with `tfds.builder_from_directory(returned).as_data_source("train")`, or, after
    `import ecgjax.data.tfds.ecg_cmr`, with `tfds.data_source(name, split="train", data_dir=data_dir)`, where
    name is `ecg_cmr/<cohort>_<first 8 characters of the fingerprint>`. Position i of a split is position i of
    the shards.
    """
    from ecgjax.data.tfds.ecg_cmr import Builder

    builder = Builder(prepared=str(prepared), data_dir=str(data_dir), file_format="array_record")
    builder.download_and_prepare()
    return epath.Path(builder.data_path)
