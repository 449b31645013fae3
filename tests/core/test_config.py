from collections.abc import Mapping, Sequence
from typing import Literal

import pytest
from ml_collections import ConfigDict

from ecgjax.core import config as configs


def probe(
    *,
    width: int,
    rate: float = 0.1,
    on: bool = True,
    name_of: str = "a",
    sizes: tuple[int, ...] = (),
    rules: Sequence[str] = (),
    depth: int | None = None,
    pooling: Literal["mean", "cls"] = "mean",
    head: Mapping[str, int] | None = None,
    leads: int = 12,
):
    return {k: v for k, v in locals().items()}


TABLE = {"probe": probe, "other": dict}


def build(**section):
    return configs.build(TABLE, {"name": "probe", "width": 8, **section}, "config.model", leads=3)


def test_a_section_becomes_the_arguments_of_its_constructor():
    built = build(rate=0.5, sizes=(1, 2))
    assert (built["width"], built["rate"], built["sizes"], built["leads"]) == (8, 0.5, (1, 2), 3)


def test_a_misspelt_key_is_named_with_its_path_and_the_nearest_key():
    with pytest.raises(ValueError, match=r"config\.model\.raet: no field of probe\. Did you mean 'rate'\?"):
        build(raet=0.1)


def test_an_unknown_name_lists_the_choices_and_the_nearest():
    with pytest.raises(
        ValueError, match=r"config\.model\.name: unknown 'prob'; choose from probe, other\..*'probe'"
    ):
        configs.build(TABLE, {"name": "prob"}, "config.model")


def test_a_section_without_name_is_refused():
    with pytest.raises(ValueError, match=r"config\.model\.name: unknown None"):
        configs.build(TABLE, {}, "config.model")


def test_a_missing_argument_is_named_with_its_path():
    with pytest.raises(ValueError, match=r"config\.model\.width: missing; probe needs it"):
        configs.build(TABLE, {"name": "probe"}, "config.model")


def test_what_the_program_supplies_is_no_config_key():
    with pytest.raises(ValueError, match=r"config\.model\.leads: set by the program"):
        build(leads=12)


def test_what_the_program_supplies_is_left_out_where_the_constructor_takes_none():
    assert configs.build(TABLE, {"name": "probe", "width": 8}, "config", channels=3)["leads"] == 12


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"width": 8.0}, r"config\.model\.width: expected int, got 8\.0"),
        ({"width": True}, r"config\.model\.width: expected int, got True"),
        ({"width": None}, r"config\.model\.width: not set; give it as --config\.model\.width=VALUE"),
        ({"rate": "fast"}, r"config\.model\.rate: expected float, got 'fast'"),
        ({"rate": True}, r"config\.model\.rate: expected float, got True"),
        ({"on": 1}, r"config\.model\.on: expected bool, got 1"),
        ({"sizes": 3}, r"config\.model\.sizes: expected tuple, got 3"),
        ({"depth": 1.5}, r"config\.model\.depth: expected int or None, got 1\.5"),
        (
            {"pooling": "maen"},
            r"config\.model\.pooling: unknown 'maen'; choose from mean, cls\. Did you mean 'mean'",
        ),
        ({"head": 3}, r"config\.model\.head: expected Mapping or None, got 3"),
    ],
)
def test_a_value_of_another_type_is_named(section, message):
    with pytest.raises(ValueError, match=message):
        build(**section)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ({"rate": 1}, "rate", 1.0),
        ({"sizes": [1, 2]}, "sizes", (1, 2)),
        ({"rules": ["a"]}, "rules", ("a",)),
        ({"depth": None}, "depth", None),
        ({"head": {"width": 3}}, "head", {"width": 3}),
    ],
)
def test_equivalent_spellings_are_admitted(section, key, value):
    built = build(**section)
    assert built[key] == value
    assert type(built[key]) is type(value)


def test_require_leaves_open_arguments_to_the_caller():
    bound = configs.bind(TABLE, {"name": "probe"}, "config")
    configs.require(bound, "config", open_arguments=("width",))
    assert bound(width=2)["width"] == 2


def test_a_nameless_section_is_called_with_the_same_checks():
    assert configs.call(probe, {"width": 4}, "config.model")["width"] == 4
    with pytest.raises(ValueError, match=r"config\.model\.widht: no field of model\. Did you mean 'width'"):
        configs.call(probe, {"widht": 4}, "config.model")


@pytest.mark.parametrize("make", [dict, ConfigDict])
def test_sections_that_nobody_reads_are_refused(make):
    configs.check_sections(make({"data": 1, "steps": 2}), ("data", "steps"))
    with pytest.raises(ValueError, match=r"config\.dta: no such key\. Did you mean 'data'"):
        configs.check_sections(make({"dta": 1, "steps": 2}), ("data", "steps"))
    with pytest.raises(ValueError, match=r"config\.steps: missing"):
        configs.check_sections(make({"data": 1}), ("data", "steps"))


def test_a_value_in_place_of_a_section_is_refused():
    with pytest.raises(ValueError, match=r"config\.data: expected the keys crop, got 3"):
        configs.check_sections(3, ("crop",), "config.data")


def test_a_field_left_to_the_user_must_be_given():
    with pytest.raises(
        ValueError, match=r"config\.data\.directory: not set; give it as --config\.data\.directory="
    ):
        configs.check_set({"data": {"directory": None}}, "data.directory")


def test_differences_name_every_leaf_that_changed_and_no_other():
    old = {"a": 1, "b": {"c": (1, 2), "d": "x"}, "gone": 0}
    new = {"a": 1, "b": {"c": [1, 2], "d": "y"}, "fresh": 0}
    assert configs.differences(old, new) == ["b.d: x -> y", "fresh: absent -> 0", "gone: 0 -> absent"]
    assert configs.differences(old, new, "config") == [
        "config.b.d: x -> y",
        "config.fresh: absent -> 0",
        "config.gone: 0 -> absent",
    ]


def test_plain_makes_json_of_config_dicts():
    tree = ConfigDict({"a": (1, ConfigDict({"b": (2,)}))})
    assert configs.plain(tree) == {"a": [1, {"b": [2]}]}
