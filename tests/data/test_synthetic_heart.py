import dataclasses

import numpy as np
import pytest

from ecgjax.data.cohorts.synthetic.ecg_parameters import CONTINUOUS, PARAMETERS, draw_ecg_parameters
from ecgjax.data.cohorts.synthetic.heart import STANDARD, TERRITORIES, draw_hearts


@pytest.fixture(scope="module")
def hearts():
    return draw_hearts(np.random.default_rng(3), 20_000)


def test_population_meets_the_constants_it_is_standardised_by(hearts):
    for name, (mean, deviation) in STANDARD.items():
        values = hearts.phenotypes()[name]
        assert abs(values.mean() - mean) < 0.2 * deviation, name
        assert 0.8 * deviation < values.std() < 1.2 * deviation, name


def test_flags_come_as_often_as_stated(hearts):
    # DCM .13 of the .85 without LVH; LBBB and AF more often in DCM.
    dcm = 0.13 * 0.85
    want = {"LVH": 0.15, "DCM": dcm, "MI": 0.15, "LBBB": 0.06 + 0.29 * dcm, "AF": 0.08 + 0.12 * dcm}
    for name, share in want.items():
        assert hearts.flags()[name].mean() == pytest.approx(share, abs=0.01), name
    assert not (hearts.lvh & hearts.dcm).any()


def test_mass_is_that_of_the_shell_between_cavity_and_wall():
    one = draw_hearts(np.random.default_rng(0), 1)
    one = dataclasses.replace(one, lvedv_ml=np.array([125.0]), wall_mm=np.array([10.0]))
    # Cube root 5; the outer one is 5 + 1.18.
    assert one.mass_g[0] == pytest.approx(1.05 * (6.18**3 - 125))


def test_end_systolic_volume_follows_ejection_fraction(hearts):
    stroke = hearts.lvedv_ml - hearts.lvesv_ml
    np.testing.assert_allclose(100 * stroke / hearts.lvedv_ml, hearts.lvef_percent, rtol=1e-12)


def test_dilated_hearts_are_large_and_weak_and_hypertrophied_ones_thick(hearts):
    healthy = ~(hearts.lvh | hearts.dcm | hearts.infarct)
    assert hearts.lvedv_ml[hearts.dcm].mean() > hearts.lvedv_ml[healthy].mean() + 40
    assert hearts.lvef_percent[hearts.dcm].mean() < 45 < 58 < hearts.lvef_percent[healthy].mean()
    assert hearts.wall_mm[hearts.lvh].mean() > 11 > 8.5 > hearts.wall_mm[healthy].mean()


def test_ecg_parameters_follow_their_table(hearts):
    """The heart's share is exactly the table's, and what is left in plain subjects is the stated noise."""
    plain = ~(hearts.lvh | hearts.lbbb | hearts.af | hearts.infarct | hearts.dcm)
    e = draw_ecg_parameters(hearts, np.random.default_rng(1), strength=0.5)[plain]
    noise = draw_ecg_parameters(hearts, np.random.default_rng(1), strength=0.0)[plain]
    for column, (name, (mean, change, deviation)) in enumerate(CONTINUOUS.items()):
        if name == "fragmentation":  # Cut at 0, so neither exact nor normal.
            continue
        share = sum(0.5 * slope * hearts.standard(phenotype)[plain] for phenotype, slope in change.items())
        difference = e[:, column] - noise[:, column]
        inside = np.abs(difference - share) < 1e-9
        assert inside.mean() > 0.99, name  # The others lie at a limit.
        assert noise[:, column].mean() == pytest.approx(mean, abs=0.05 * deviation), name
        assert noise[:, column].std() == pytest.approx(deviation, rel=0.05), name


def test_q_waves_lie_in_the_infarcts_territory_and_three_in_ten_are_silent(hearts):
    e = draw_ecg_parameters(hearts, np.random.default_rng(1))
    q = np.stack([e[:, PARAMETERS.index(f"q_{name}")] for name in TERRITORIES], 1)
    assert not q[~hearts.infarct].any()
    for index in range(3):
        assert not np.delete(q[hearts.territory == index], index, axis=1).any()
    assert (q[hearts.infarct].max(1) == 0).mean() == pytest.approx(0.30, abs=0.03)


def test_strength_scales_the_heart_and_leaves_the_noise(hearts):
    e = [draw_ecg_parameters(hearts, np.random.default_rng(1), strength=s) for s in (0.0, 1.0, 2.0)]
    column = PARAMETERS.index("log_lv_ratio")
    step = 0.24 * hearts.standard("LVM")
    np.testing.assert_allclose(e[1][:, column] - e[0][:, column], step, atol=1e-12)
    np.testing.assert_allclose(e[2][:, column] - e[1][:, column], step, atol=1e-12)


def test_negative_strength_is_refused(hearts):
    with pytest.raises(ValueError, match=r"strength -1\.0 is negative"):
        draw_ecg_parameters(hearts, np.random.default_rng(1), strength=-1.0)
