import time

import numpy as np
import pytest

from ecgjax.metrics import bootstrap, draws
from ecgjax.metrics.classification import auprc, auroc
from ecgjax.metrics.regression import pearson, r2

SUBJECT = np.array(["c", "a", "a", "b", "c", "d", "e", "e", "e", "f"])


def _resampled(column, index, count):
    """The records of one draw written out, subject by subject."""
    return np.concatenate([np.repeat(column[index == s], int(times)) for s, times in enumerate(count)])


@pytest.fixture
def columns():
    generator = np.random.default_rng(3)
    truth = generator.normal(size=len(SUBJECT))
    prediction = truth + generator.normal(size=len(SUBJECT))
    truth[3] = np.nan
    return truth, prediction


def test_every_r2_draw_equals_r2_of_the_written_out_sample(columns):
    truth, prediction = columns
    index, subjects = bootstrap.subject_index(SUBJECT)
    counts = bootstrap.subject_counts(subjects, draws=40, seed=0)
    got = draws.r2_draws(truth + 1000, prediction + 1000, index, counts)
    want = [r2(_resampled(truth, index, c), _resampled(prediction, index, c)) for c in counts]
    np.testing.assert_allclose(got, want, rtol=1e-8)


def test_every_auroc_draw_equals_auroc_of_the_written_out_sample(columns, monkeypatch):
    monkeypatch.setattr(draws, "_BUDGET", 50)  # Several chunks of draws.
    truth, prediction = columns
    truth = np.where(np.isnan(truth), np.nan, (truth > 0).astype(float))
    score = np.round(prediction)
    index, subjects = bootstrap.subject_index(SUBJECT)
    holds = [np.array([np.any(truth[index == s] == c) for s in range(subjects)]) for c in (1, 0)]
    counts = bootstrap.subject_counts(subjects, draws=60, seed=0)
    complete = bootstrap.class_complete(counts, *holds, seed=0)
    got = draws.auroc_draws(truth, score, index, complete)
    want = [auroc(_resampled(truth, index, c), _resampled(score, index, c)) for c in complete]
    assert not np.isnan(want).any()
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_every_pearson_draw_equals_that_of_the_written_out_sample(columns):
    truth, prediction = columns
    index, subjects = bootstrap.subject_index(SUBJECT)
    counts = bootstrap.subject_counts(subjects, draws=40, seed=0)
    got = draws.pearson_draws(truth + 1000, prediction - 500, index, counts)
    want = [pearson(_resampled(truth, index, c), _resampled(prediction, index, c)) for c in counts]
    np.testing.assert_allclose(got, want, rtol=1e-8)


def test_every_auprc_draw_equals_that_of_the_written_out_sample(columns, monkeypatch):
    monkeypatch.setattr(draws, "_BUDGET", 50)
    truth, prediction = columns
    truth = np.where(np.isnan(truth), np.nan, (truth > 0).astype(float))
    score = np.round(prediction)  # Ties.
    index, subjects = bootstrap.subject_index(SUBJECT)
    holds = [np.array([np.any(truth[index == s] == c) for s in range(subjects)]) for c in (1, 0)]
    counts = bootstrap.subject_counts(subjects, draws=60, seed=0)
    complete = bootstrap.class_complete(counts, *holds, seed=0)
    got = draws.auprc_draws(truth, score, index, complete)
    want = [auprc(_resampled(truth, index, c), _resampled(score, index, c)) for c in complete]
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_subjects_are_drawn_whole_and_only_incomplete_draws_are_replaced():
    counts = bootstrap.subject_counts(6, draws=300, seed=1)
    np.testing.assert_array_equal(counts.sum(axis=1), 6)
    assert counts.mean() == 1
    positive = np.array([True] + [False] * 5)
    complete = bootstrap.class_complete(counts, positive, ~positive, seed=1)
    lacking = (counts[:, 0] == 0) | (counts[:, 1:].sum(axis=1) == 0)
    assert 0.2 < lacking.mean() < 0.5  # (5/6)^6 = .33
    assert np.all(complete[:, 0] > 0)
    np.testing.assert_array_equal(complete[~lacking], counts[~lacking])


def test_draws_do_not_depend_on_the_order_of_records(columns):
    truth, prediction = columns
    order = np.random.default_rng(0).permutation(len(SUBJECT))
    a = bootstrap.interval(truth, prediction, SUBJECT, metric="r2", draws=50)
    b = bootstrap.interval(truth[order], prediction[order], SUBJECT[order], metric="r2", draws=50)
    assert (a.low, a.high) == pytest.approx((b.low, b.high))
    assert (a.n, a.subjects) == (9, 5)  # Subject b has no truth.


def test_repeated_records_of_a_subject_do_not_narrow_the_interval():
    generator = np.random.default_rng(0)
    truth = generator.normal(size=60)
    prediction = truth + generator.normal(size=60)
    subject = np.arange(60).astype(str)
    once = bootstrap.interval(truth, prediction, subject, metric="r2", draws=400)
    again = bootstrap.interval(*(np.tile(x, 4) for x in (truth, prediction, subject)), metric="r2", draws=400)
    assert (again.low, again.high) == pytest.approx((once.low, once.high))
    naive = bootstrap.interval(
        np.tile(truth, 4), np.tile(prediction, 4), np.arange(240).astype(str), metric="r2", draws=400
    )
    assert naive.high - naive.low < 0.7 * (once.high - once.low)


def test_interval_covers_the_population_value():
    # Prediction = truth + unit noise of sd .5, R2 = 1 - .25 in the population.
    generator = np.random.default_rng(5)
    hits = 0
    for _ in range(100):
        truth = generator.normal(size=150)
        prediction = truth + 0.5 * generator.normal(size=150)
        got = bootstrap.interval(truth, prediction, np.arange(150), metric="r2", draws=200)
        hits += got.low <= 0.75 <= got.high
    assert 85 <= hits <= 100


def test_the_interval_of_a_difference_is_narrower_than_two_separate_ones():
    generator = np.random.default_rng(0)
    truth = generator.normal(size=200)
    a = truth + generator.normal(size=200)
    b = a + 0.2 * (truth - a)
    scored = bootstrap.score_targets(
        np.stack([truth] * 3, 1), np.stack([a, b, a], 1), np.arange(200), metrics=["r2"] * 3
    )
    paired, same = (
        bootstrap.percentile_interval(
            scored.value[i] - scored.value[0], scored.draws[:, i] - scored.draws[:, 0], n=200, subjects=200
        )
        for i in (1, 2)
    )
    alone = [bootstrap.interval(truth, x, np.arange(200), metric="r2") for x in (a, b)]
    assert paired.value == pytest.approx(alone[1].value - alone[0].value)
    assert paired.high - paired.low < 0.7 * max(x.high - x.low for x in alone)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def difference(truth, a, b, subject, *, metrics, draws=1000, seed=0):
    """Mean over targets of `b` minus that of `a`, seeds and subjects resampled together."""
    settings = {"metrics": metrics, "draws": draws, "seed": seed}
    a, b = (
        bootstrap.over_seeds(
            [bootstrap.score_targets(truth, prediction, subject, **settings) for prediction in row], seed=seed
        )
        for row in (a, b)
    )
    value, drawn = np.mean(b.value - a.value), np.mean(b.draws - a.draws, axis=1)
    return bootstrap.percentile_interval(value, drawn, n=len(truth), subjects=len(np.unique(subject)))


def test_seeds_and_subjects_are_drawn_together_as_in_a_loop():
    generator = np.random.default_rng(2)
    truth = generator.normal(size=(12, 2))
    truth[:, 1] = truth[:, 1] > 0
    a, b = generator.normal(size=(2, 3, 12, 2)) + truth
    subject = np.arange(12)
    draws, metrics = 30, ["r2", "auroc"]
    got = difference(truth, list(a), list(b), subject, metrics=metrics, draws=draws, seed=4)
    counts = bootstrap.subject_counts(12, draws=draws, seed=4)
    complete = bootstrap.class_complete(counts, truth[:, 1] == 1, truth[:, 1] == 0, seed=4)
    weights = bootstrap.seed_weights(3, draws=draws, seed=4)
    differences = []
    for draw in range(draws):
        total = 0.0
        for r in range(3):
            for column, (metric, count) in enumerate(zip((r2, auroc), (counts, complete), strict=True)):
                rows = np.repeat(np.arange(12), count[draw].astype(int))
                scores = [metric(truth[rows, column], x[r, rows, column]) for x in (a, b)]
                total += weights[draw, r] * (scores[1] - scores[0]) / 2
        differences.append(total)
    low, high = np.quantile(differences, [0.025, 0.975])
    assert (got.low, got.high) == pytest.approx((low, high))


def test_spread_between_seeds_widens_the_interval():
    generator = np.random.default_rng(0)
    truth = generator.normal(size=(300, 1))
    noise = generator.normal(size=(300, 1))
    a = [truth + noise] * 3
    b = [truth + level * noise for level in (0.5, 0.9, 1.3)]  # One seed falls behind.
    pooled = [truth + 0.95 * noise] * 3
    wide, narrow = (difference(truth, a, x, np.arange(300), metrics=["r2"]) for x in (b, pooled))
    assert wide.low < 0 < wide.value
    assert narrow.low > 0


def test_targets_without_a_value_stay_nan_throughout():
    scored = bootstrap.score_targets(
        np.stack([np.ones(5), np.zeros(5)], axis=1),
        np.random.default_rng(0).normal(size=(5, 2)),
        np.arange(5),
        metrics=["r2", "auroc"],
        draws=10,
    )
    assert np.isnan(scored.value).all()
    assert np.isnan(scored.draws).all()
    got = bootstrap.interval(np.zeros(5), np.arange(5.0), np.arange(5), metric="auroc")
    assert np.isnan([got.value, got.low, got.high]).all()
    assert (got.n, got.subjects) == (5, 5)


def test_twelve_targets_of_two_thousand_subjects_take_seconds():
    generator = np.random.default_rng(0)
    truth = generator.normal(size=(2000, 12))
    truth[:, 7:] = truth[:, 7:] > 1
    prediction = truth + generator.normal(size=truth.shape)
    start = time.process_time()
    bootstrap.score_targets(
        truth, prediction, np.arange(2000), metrics=["r2"] * 7 + ["auroc"] * 5, draws=1000
    )
    assert time.process_time() - start < 10
