"""Every golden array is read by some test; each module says which in `USES`, and `conftest` holds it to that."""

import importlib.util
import pathlib

import numpy as np
from formula import arrays_used

_HERE = pathlib.Path(__file__).parent


def test_every_array_is_used(goldens):
    modules = [
        load(path) for path in sorted(_HERE.glob("test_*.py")) if path.name != pathlib.Path(__file__).name
    ]
    used = {pair for module in modules for pair in arrays_used(getattr(module, "USES", {}), goldens)}
    there = {
        (path.stem, key) for path in goldens.glob("*.npz") for key in np.load(path, allow_pickle=False).files
    }
    unused = sorted(there - used - {(name, "meta_json") for name, _ in there})
    assert there
    assert not unused, f"{len(unused)} of {len(there)} golden arrays are used by no test: {unused}"


def load(path):
    """By path: a module of the same name lies in other directories of tests."""
    spec = importlib.util.spec_from_file_location(f"parity_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
