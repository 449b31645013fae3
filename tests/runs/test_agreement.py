"""What processes compare before they train, each difference alone; test_processes does it with two processes."""

import copy
import json

import pytest

from ecgjax.core import config as configs
from ecgjax.core import distributed
from ecgjax.runs import agreement


@pytest.fixture
def items(masked_config, tmp_path):
    return json.loads(json.dumps(agreement.items(configs.plain(masked_config), tmp_path, {"dry_run": False})))


@pytest.fixture
def second(monkeypatch):
    """Makes the job one of two processes, the other of which says these items."""

    def add(other):
        def gather(name, value):
            text = json.dumps(other, sort_keys=True)
            return [value, agreement._digest(text.encode()) if name == "agreement" else text]

        monkeypatch.setattr(distributed, "gather", gather)

    return add


def test_equal_processes_train(items, second):
    second(items)
    agreement.check(items)


@pytest.mark.parametrize(
    ("part", "field", "way"),
    [
        ("config", "seed", "start every process with the same command"),
        ("command", "dry_run", "start every process with the same flags"),
        ("code", "sources", "install the same ecgjax everywhere"),
        ("code", "version", "install the same ecgjax everywhere"),
        ("libraries", "jax", "install the same versions everywhere"),
        ("libraries", "libtpu", "install the same versions everywhere"),
        ("data", "manifest", "give every host the same prepared data"),
        ("run", "workdir", "start every process with the same --workdir"),
        ("settings", "jax_enable_x64", "start every process in the same environment"),
        ("settings", "XLA_FLAGS", "start every process in the same environment"),
        ("devices", "kind", "look why a host does not find its accelerators, or leave it out"),
    ],
)
def test_one_difference_is_named_with_both_values_and_its_way_out(items, second, part, field, way):
    other = copy.deepcopy(items)
    other[part][field] = "another"
    second(other)
    with pytest.raises(ValueError, match="the processes do not agree, so none trains") as caught:
        agreement.check(items)
    assert f"  {part}.{field}: {items[part][field]} -> another" in str(caught.value)
    assert str(caught.value).endswith(f"The way out: {way}.")
