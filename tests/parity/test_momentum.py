import re

import pytest
from formula import Golden

from ecgjax.objectives.momentum import average, cosine_momentum

USES = {"misc": ["ema/*", "byol_tau/*", "f64/byol_tau/*"]}


@pytest.fixture(scope="module")
def golden(goldens, precision):
    return Golden(goldens, "misc", precision)


def settings(golden, pattern):
    """Numbers in the name of each array that matches `pattern`."""
    found = {key: match for key in golden.files if (match := re.fullmatch(pattern, key))}
    assert found, pattern
    return found.items()


def test_a_target_is_the_moving_average_of_its_arm(golden):
    target, online = ({"kernel": golden.input(f"ema/{name}")} for name in ("target", "online"))
    for key, match in settings(golden, r"ema/out_([\d.]+)"):
        golden.check(key, average(target, online, momentum=float(match[1]))["kernel"])


def test_momentum_rises_by_a_cosine(golden):
    for key, match in settings(golden, r"f64/byol_tau/tau_init([\d.]+)_max(\d+)"):
        steps = golden.input("byol_tau/step")
        golden.check(key, cosine_momentum(steps, start=float(match[1]), steps=int(match[2])))
