import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from formula import Golden

from ecgjax.losses.contrastive import info_nce, nt_xent, similarity
from ecgjax.losses.matrix import (
    k_positive,
    positives_from_similarity,
    remove_false_negatives,
    supcon_views,
    supervised_contrastive,
)
from ecgjax.losses.noncontrastive import barlow_twins, byol, negative_cosine

USES = {"losses": ["*"]}


@pytest.fixture(scope="module")
def golden(goldens, precision):
    return Golden(goldens, "losses", precision)


@pytest.fixture(scope="module")
def positives(golden):
    """Similarities of the batch's subjects, compared with the threshold."""
    indices = np.asarray(golden["indices"])
    matrix = golden.input("similarity")[np.ix_(indices, indices)]
    return positives_from_similarity(matrix, threshold=golden.meta["threshold"])


def settings(golden, pattern):
    """Name of each loss whose name matches `pattern`, with the numbers in it."""
    found = {}
    for key in golden.files:
        match = re.fullmatch(pattern, key.removesuffix("/loss"))
        if key.endswith("/loss") and match:
            found[match[0]] = {k: float(v) for k, v in match.groupdict().items()}
    assert found, pattern
    return found.items()


def check(golden, name, loss):
    """Value and gradients of `loss(a, b)`."""
    a, b = golden.input("a"), golden.input("b")
    value, gradients = jax.value_and_grad(loss, argnums=(0, 1))(a, b)
    golden.check(f"{name}/loss", value, floor=1e-5)
    golden.check(f"{name}/grad_a", gradients[0], floor=1e-4)
    if f"{name}/grad_b" in golden:
        golden.check(f"{name}/grad_b", gradients[1], floor=1e-4)
    else:  # The target's gradient is stopped.
        assert not np.any(gradients[1])


def check_cross_logits(golden, name, temperature=1.0):
    """Logits between the modalities; a row's own pair is in the column that its label names."""
    a, b = golden.input("a"), golden.input("b")
    golden.check(f"{name}/logits", similarity(a, b) / temperature)
    np.testing.assert_array_equal(golden[f"{name}/labels"], np.arange(len(a)))


def test_info_nce(golden):
    for name, at in settings(golden, r"clip_tau(?P<tau>[\d.]+)_lam(?P<lam>[\d.]+)"):
        check(golden, name, lambda a, b, at=at: info_nce(a, b, temperature=at["tau"], balance=at["lam"]))
        check_cross_logits(golden, name, at["tau"])


def test_nt_xent(golden):
    for name, at in settings(golden, r"ntxent_tau(?P<tau>[\d.]+)"):
        check(golden, name, lambda a, b, at=at: nt_xent(a, b, temperature=at["tau"]))
        a, b = golden.input("a"), golden.input("b")
        others = ~np.eye(len(a), dtype=bool)
        rows = [
            jnp.concatenate([similarity(x, y), similarity(x, x)[others].reshape(len(a), -1)], 1)
            for x, y in ((a, b), (b, a))
        ]
        golden.check(f"{name}/logits", jnp.concatenate(rows) / at["tau"])
        np.testing.assert_array_equal(golden[f"{name}/labels"], np.tile(np.arange(len(a)), 2))


def test_positives_are_the_similar_subjects(golden, positives):
    golden.check("mask_supcon", positives.astype(golden.precision))
    itself = jnp.eye(len(positives), dtype=bool)
    golden.check("mask_remove_fn_keep", (~positives | itself).astype(golden.precision))


def test_supervised_contrastive(golden, positives):
    for name, at in settings(golden, r"supcon_clip_tau(?P<tau>[\d.]+)"):
        check(
            golden,
            name,
            lambda a, b, at=at: supervised_contrastive(a, b, positives=positives, temperature=at["tau"]),
        )
        check_cross_logits(golden, name)


def test_remove_false_negatives(golden, positives):
    for name, at in settings(golden, r"remove_fn_tau(?P<tau>[\d.]+)"):
        check(
            golden,
            name,
            lambda a, b, at=at: remove_false_negatives(a, b, similar=positives, temperature=at["tau"]),
        )
        check_cross_logits(golden, name)


def test_k_positive_divided_as_released(golden, positives):
    for name, at in settings(golden, r"kpositive_tau(?P<tau>[\d.]+)"):
        mask = jnp.asarray(golden[f"{name}/mask"] > 0)
        divisor = len(mask) * (golden.meta["k"] - 1)
        check(
            golden,
            name,
            lambda a, b, at=at, mask=mask, divisor=divisor: k_positive(
                a, b, mask=mask, temperature=at["tau"], divisor=divisor
            ),
        )
        check_cross_logits(golden, name)
        # What the released code can draw: the own column, and columns below the number of positives.
        reachable = np.arange(len(mask)) < np.asarray(positives).sum(1)[:, None]
        assert not np.any(mask & ~(reachable | np.eye(len(mask), dtype=bool)))


def test_supcon_views(golden, positives):
    pattern = r"supcon_views_tau(?P<tau>[\d.]+)_basetemp(?P<base>[\d.]+)"
    for name, at in settings(golden, pattern):
        check(
            golden,
            name,
            lambda a, b, at=at: at["tau"] / at["base"] * released_supcon(a, b, positives, at["tau"]),
        )
        z = jnp.concatenate([golden.input("a"), golden.input("b")])
        golden.check(f"{name}/logits", similarity(z, z) / at["tau"])
        # A subject's own columns, with the diagonal of this 2 x 2b array zeroed; nothing reads them.
        labels = np.tile(np.arange(len(positives)), (2, 2))
        np.fill_diagonal(labels, 0)
        np.testing.assert_array_equal(golden[f"{name}/labels"], labels)


def released_supcon(a, b, positives, temperature):
    """With the 1e-6 that the released code adds to each sum of exponentials, divided by their largest."""
    z = jnp.concatenate([a, b])
    logits = similarity(z, z) / temperature
    itself = jnp.eye(len(z), dtype=bool)
    total = jax.nn.logsumexp(jnp.where(itself, -jnp.inf, logits), axis=1)
    added = jax.lax.stop_gradient(logits.max(axis=1)) + math.log(1e-6)
    more = jnp.mean(jnp.logaddexp(total, added) - total)
    return supcon_views(a, b, positives=positives, temperature=temperature) + more


def test_barlow_twins(golden):
    weight = golden.meta["barlow_lambda"]
    for name, at in settings(golden, r"barlow_bs(?P<size>\d+)"):
        size = int(at["size"])
        check(
            golden,
            name,
            lambda a, b, size=size: barlow_twins(a, b, off_diagonal=weight, batch_size=size),
        )
        if size == golden.meta["N"]:
            check(golden, name, lambda a, b: barlow_twins(a, b, off_diagonal=weight))


def test_byol(golden):
    predictor, a, b = (golden.input(name) for name in ("byol_W", "a", "b"))
    golden.check("byol_sym/loss", byol(a @ predictor, b @ predictor, a, b), floor=1e-5)

    # The golden's gradients run through the targets too, which the released code detaches outside its loss.
    def through_both(a, b):
        through_predictions = byol(a @ predictor, b @ predictor, a, b)
        through_targets = byol(b, a, b @ predictor, a @ predictor)  # The cosine with its sides swapped.
        return through_predictions + through_targets

    gradients = jax.grad(through_both, argnums=(0, 1))(a, b)
    golden.check("byol_sym/grad_a", gradients[0], floor=1e-4)
    golden.check("byol_sym/grad_b", gradients[1], floor=1e-4)


def test_negative_cosine(golden):
    check(golden, "negcos", negative_cosine)
