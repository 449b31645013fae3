import numpy as np
import pytest

from ecgjax.core import trees
from ecgjax.models.posemb import resize_positions
from ecgjax.train.transfer import transfer

RULES = [(r"^ecg/encoder/", "ecg/encoder/")]


def tree(value, **extra):
    encoder = {"kernel": np.full((2, 3), value), "bias": np.full(3, value)}
    return {"ecg": {"encoder": encoder, **{k: {"kernel": np.full((2, 2), value)} for k in extra}}}


SOURCE, TARGET = tree(1.0, decoder=True), tree(0.0, head=True)


def test_leaves_under_a_rule_are_copied_and_all_others_stay():
    new, _ = transfer(TARGET, SOURCE, rules=RULES)
    assert {name: float(leaf.flat[0]) for name, leaf in trees.flatten(new).items()} == {
        "ecg/encoder/bias": 1.0,
        "ecg/encoder/kernel": 1.0,
        "ecg/head/kernel": 0.0,
    }


def test_every_leaf_is_accounted_for_on_both_sides():
    _, account = transfer(TARGET, SOURCE, rules=RULES)
    assert sorted(account.copied + account.fresh) == sorted(trees.flatten(TARGET))
    assert account.fresh == ("ecg/head/kernel",)
    assert account.unused == ("ecg/decoder/kernel",)
    assert "2 leaves copied, 1 left as drawn, 1 unused" in str(account)


def test_a_rule_may_rename():
    source = {"encoder": SOURCE["ecg"]["encoder"]}
    new, account = transfer(TARGET, source, rules=[(r"^encoder/", "ecg/encoder/")])
    assert float(new["ecg"]["encoder"]["bias"][0]) == 1.0
    assert account.unused == ()


def test_the_first_matching_rule_decides():
    rules = [(r"^ecg/encoder/bias$", "nowhere"), *RULES]
    _, account = transfer(TARGET, SOURCE, rules=rules)
    assert account.copied == ("ecg/encoder/kernel",)
    assert "ecg/encoder/bias" in account.fresh
    assert "ecg/encoder/bias" in account.unused


def test_another_shape_is_refused_with_both():
    source = tree(1.0)
    source["ecg"]["encoder"]["kernel"] = np.ones((5, 3))
    with pytest.raises(ValueError, match=r"ecg/encoder/kernel has shape \(5, 3\).*needs \(2, 3\)"):
        transfer(TARGET, source, rules=RULES)


def test_rules_that_copy_nothing_are_refused_with_what_both_sides_hold():
    with pytest.raises(
        ValueError, match=r"copy nothing: the source holds \['ecg/decoder/kernel', .*the target \["
    ):
        transfer(TARGET, SOURCE, rules=[("^ecg/encodr/", "ecg/encoder/")])


def test_two_sources_for_one_leaf_are_refused():
    source = {**tree(1.0), "old": tree(2.0)["ecg"]}
    with pytest.raises(
        ValueError, match=r"both map to ecg/encoder/bias; make config\.init_from\.rules unambiguous"
    ):
        transfer(TARGET, source, rules=[*RULES, (r"^old/", "ecg/")])


def positions(columns, rows=12):
    table = np.random.default_rng(columns).standard_normal((1, 1 + rows * columns, 8)).astype(np.float32)
    return {"ecg": {"encoder": {"positions": table, "kernel": np.ones(2)}}}


def test_positions_of_another_length_are_resized_in_time():
    source = positions(4)
    new, account = transfer(positions(2), source, rules=RULES, rows=12)
    want = resize_positions(source["ecg"]["encoder"]["positions"][0], leads=12, columns=2)
    np.testing.assert_array_equal(new["ecg"]["encoder"]["positions"][0], want)
    assert account.resized == ("ecg/encoder/positions: 48 to 24 positions",)
    assert "resized in time: ecg/encoder/positions: 48 to 24 positions" in str(account)


@pytest.mark.parametrize("rows", [None, 5])
def test_positions_of_unknown_or_other_rows_are_refused(rows):
    with pytest.raises(
        ValueError, match=f"holds 48 positions.*needs 24, and {rows} rows of leads divide not both"
    ):
        transfer(positions(2), positions(4), rules=RULES, rows=rows)
