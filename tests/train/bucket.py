"""A bucket in memory, where gs:// paths lead: objects are written whole, and cannot be appended to."""

import sys

import fsspec
import pytest
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem


class Bucket(MemoryFileSystem):
    """What gcsfs offers of fsspec; each test has its own."""

    protocol = ("gcs", "gs")
    cachable = False
    root_marker = ""

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + str(path).removeprefix("gs://").strip("/")

    def open(self, path, mode="rb", **options):
        if "a" in mode or "+" in mode:
            raise NotImplementedError(f"mode {mode} in a bucket")
        return super().open(path, mode, **options)


@pytest.fixture
def gs():
    """A directory of the bucket."""
    Bucket.store = {}
    Bucket.pseudo_dirs = [""]
    fsspec.register_implementation("gcs", Bucket, clobber=True)
    backend.fsspec_backend._get_filesystem.cache_clear()
    yield "gs://bucket/run"
    backend.fsspec_backend._get_filesystem.cache_clear()
    sys.modules["fsspec.registry"]._registry.pop("gcs")
