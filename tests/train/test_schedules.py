import math

import pytest

from ecgjax.train import schedules


def test_warmup_cosine_has_the_values_of_its_formula():
    schedule = schedules.warmup_cosine(learning_rate=2.0, steps=14, warmup_steps=4, end_rate=0.5)
    got = [float(schedule(step)) for step in (0, 1, 3, 4, 9, 14, 20)]
    # A quarter of the way up at step 0; the top at step 3 and 4; midway (2 + 0.5) / 2 at step 9; the end from 14 on.
    assert got == pytest.approx([0.5, 1.0, 2.0, 2.0, 1.25, 0.5, 0.5])


def test_a_third_of_the_cosine():
    schedule = schedules.warmup_cosine(learning_rate=1.0, steps=30, warmup_steps=0)
    assert float(schedule(10)) == pytest.approx(0.5 * (1 + math.cos(math.pi / 3)))
    assert float(schedule(0)) == 1.0


@pytest.mark.parametrize("warmup", [10, 11, -1])
def test_a_warm_up_as_long_as_the_run_is_refused(warmup):
    with pytest.raises(ValueError, match=rf"warmup_steps is {warmup}, which must lie in \[0, 10\)"):
        schedules.warmup_cosine(learning_rate=1.0, steps=10, warmup_steps=warmup)


def test_the_rates_of_masked_modelling_at_the_start_of_an_epoch():
    rate = schedules.peak_rate(base_rate=1e-5, batch_size=128)
    assert rate == pytest.approx(3.2e-4)
    schedule = schedules.half_cosine(
        learning_rate=rate, steps=400 * 218, steps_per_epoch=218, warmup_epochs=40.0
    )
    got = [float(schedule(epoch * 218)) for epoch in (0, 20, 40, 220)]
    assert got == pytest.approx([0.0, 1.6e-4, 3.2e-4, 1.6e-4], rel=1e-5)
    # 1 + cos(pi - 0.009) loses all but three digits in float32.
    assert float(schedule(399 * 218)) == pytest.approx(6.0923e-9, rel=5e-3)


def test_the_rates_of_contrastive_training_by_epoch():
    schedule = schedules.epoch_cosine(
        learning_rate=1e-4, steps=300 * 109, steps_per_epoch=109, warmup_epochs=30
    )
    want = {0: 0, 1: 3.44828e-6, 29: 1e-4, 30: 1e-4, 31: 9.99966e-5, 165: 5e-5}
    for epoch, rate in want.items():
        for step in (0, 108):
            assert float(schedule(epoch * 109 + step)) == pytest.approx(rate, rel=1e-5), epoch
    assert float(schedule(299 * 109)) == pytest.approx(3.3846e-9, rel=1e-2)


@pytest.mark.parametrize(("base", "batch", "rate"), [(3e-6, 8, 6e-6), (1e-6, 16, 4e-6)])
def test_the_rates_of_fine_tuning(base, batch, rate):
    assert schedules.peak_rate(base_rate=base, batch_size=batch) == pytest.approx(rate)


def test_a_base_rate_is_resolved_by_the_batch_size_of_the_job():
    section = {"name": "constant", "base_rate": 1.0, "divisor": 256}
    assert schedules.build(section, "config", steps=10, batch_size=64)(0) == 0.25


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "learning_rate is None, base_rate is None; give exactly one"),
        ({"learning_rate": 1.0, "base_rate": 1.0}, "give exactly one"),
        ({"base_rate": 1.0, "divisor": 0.0}, r"divisor is 0\.0; it must be above 0"),
        ({"base_rat": 1.0}, "base_rat"),
    ],
)
def test_a_rate_is_given_once(fields, message):
    with pytest.raises(ValueError, match=message):
        schedules.build({"name": "constant", **fields}, "config.optimizer.schedule", steps=10, batch_size=8)


def test_a_schedule_by_epochs_needs_to_know_the_epoch():
    section = {"name": "half_cosine", "learning_rate": 1.0, "warmup_epochs": 3}
    with pytest.raises(ValueError, match=r"schedule\.steps_per_epoch: missing; half_cosine needs it"):
        schedules.build(section, "config.optimizer.schedule", steps=10)
    with pytest.raises(
        ValueError, match=r"warmup_epochs is 3\.0, which must lie in \[0, 2\.5\): config.steps = 10"
    ):
        schedules.build(section, "config.optimizer.schedule", steps=10, steps_per_epoch=4)
