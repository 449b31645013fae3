import dataclasses

import numpy as np
import pytest

from ecgjax.data.cohorts.synthetic.anatomy import ANGLES, draw_shape, outlines
from ecgjax.data.cohorts.synthetic.cine import cine, contraction, end_systole
from ecgjax.data.cohorts.synthetic.heart import draw_hearts

SEPTUM, LATERAL = ANGLES // 2, 0


def heart(**changes):
    """An average heart without disease, some changed."""
    usual = {
        "lvedv_ml": 150.0,
        "lvef_percent": 60.0,
        "wall_mm": 8.0,
        "rvedv_ml": 155.0,
        "rvef_percent": 57.0,
        "lvh": False,
        "dcm": False,
        "territory": -1,
        "infarct_size": 0.0,
        "lbbb": False,
        "af": False,
    }
    fields = {name: np.array([value]) for name, value in {**usual, **changes}.items()}
    return dataclasses.replace(draw_hearts(np.random.default_rng(0), 1), **fields)


def shape_of(**changes):
    """Outlines of the middle plane at end-diastole, half-way and end-systole."""
    shape = draw_shape(np.random.default_rng(1))
    return outlines(heart(**changes), shape, np.zeros(3), np.array([0.0, 0.5, 1.0]))


def area(radius):
    """Area inside a border given by angle."""
    return np.mean(radius**2, axis=-1) * np.pi


def rv_area(outline):
    return area(outline.rv) - area(outline.outer)


def picture(**changes):
    """Noisy default frames of one person: ED, middle, ES."""
    return cine(heart(**changes), (5,), size=96, field_mm=140.0).intensity[:, 0]


@pytest.mark.parametrize(("slices", "frames"), [(1, 20), (9, 3), (10, 25), (12, 50)])
def test_the_default_frames_are_those_the_rule_picks_from_a_full_stack(slices, frames):
    one = cine(heart(lbbb=True), (3, 1), size=32, field_mm=140.0)
    full = cine(heart(lbbb=True), (3, 1), size=32, field_mm=140.0, slices=slices, frames=frames)
    assert (one.ed, one.es) == (0, 2)
    picked = full.intensity[[full.ed, full.es // 2, full.es], slices // 2]
    np.testing.assert_array_equal(picked, one.intensity[:, 0])


def test_frames_differ_in_noise_even_where_the_heart_stands_the_same():
    full = cine(heart(), (3,), size=32, field_mm=140.0, frames=20).intensity[:, 0]
    frames = full.reshape(20, -1)
    assert len(np.unique(frames.round(4), axis=0)) == 20


def test_contraction_is_half_way_half_way_to_end_systole():
    for frames in (3, 20, 25, 50):
        course, es = contraction(frames), end_systole(frames)
        assert (course[0], course[es // 2], course[es]) == (0, 0.5, 1)
        assert es % 2 == 0
        assert np.argmax(course) == es
        assert (np.diff(course[es:]) <= 0).all()


def test_cavity_areas_carry_volume_and_ejection_fraction_whatever_moves():
    for changes in ({}, {"lbbb": True}, {"territory": 0, "infarct_size": 0.25, "lvef_percent": 45.0}):
        outline = shape_of(**changes)
        ef = changes.get("lvef_percent", 60.0) / 100
        ratio = area(outline.cavity)[2] / area(outline.cavity)[0]
        assert ratio == pytest.approx((1 - ef) ** (2 / 2.4), rel=1e-6), changes
    double = area(shape_of(lvedv_ml=300.0).cavity)[0] / area(shape_of().cavity)[0]
    assert double == pytest.approx(2 ** (2 / 3), rel=1e-6)


def test_the_wall_has_its_thickness_at_end_diastole_and_thickens():
    outline = shape_of(wall_mm=11.0)
    wall = (outline.outer - outline.cavity).mean(1)
    assert wall[0] == pytest.approx(11.0, rel=1e-6)
    assert 1.3 * wall[0] < wall[2] < 1.9 * wall[0]


def test_rv_area_follows_rv_volume_and_ejection_fraction():
    usual, weak, large = shape_of(), shape_of(rvef_percent=35.0), shape_of(rvedv_ml=240.0)
    assert rv_area(weak)[0] == pytest.approx(rv_area(usual)[0], rel=1e-6)
    assert rv_area(weak)[2] / rv_area(usual)[2] == pytest.approx((0.65 / 0.43) ** 0.80, rel=1e-6)
    assert rv_area(large)[0] / rv_area(usual)[0] == pytest.approx((240 / 155) ** (2 / 3), rel=1e-6)


def test_a_large_rv_also_has_another_shape():
    def span(outline):
        return np.mean(outline.rv[0] - outline.outer[0] > 0.5)

    assert span(shape_of(rvedv_ml=240.0)) > 1.1 * span(shape_of(rvedv_ml=120.0))


def test_rvef_is_seen_in_the_end_systolic_frame_and_not_before():
    usual, weak = picture(), picture(rvef_percent=35.0)
    # Same noise in both, so every change is the RV's: some 380 mm2 of 140 x 140 mm turn from lung to blood.
    changed = (np.abs(usual - weak) > 60).mean((1, 2))
    np.testing.assert_array_equal(usual[0], weak[0])
    assert changed[2] > 0.01
    assert changed[2] > changed[1]


def test_lbbb_septum_lags_half_way_and_the_lateral_wall_does_not():
    usual, block = shape_of(), shape_of(lbbb=True)
    assert block.cavity[1, SEPTUM] > usual.cavity[1, SEPTUM] + 3
    assert block.cavity[1, LATERAL] < usual.cavity[1, LATERAL] - 1
    assert np.abs(picture(lbbb=True)[1] - picture()[1]).max() > 60
    np.testing.assert_array_equal(picture(lbbb=True)[0], picture()[0])


@pytest.mark.parametrize(("territory", "degrees"), [(0, 115), (1, 268), (2, 5)])
def test_an_infarct_is_thin_and_still_in_its_territory(territory, degrees):
    outline = shape_of(territory=territory, infarct_size=0.2)
    here = round(degrees / 360 * ANGLES)
    across = (here + ANGLES // 2) % ANGLES
    wall = outline.outer - outline.cavity
    assert wall[0, here] < 0.6 * wall[0, across]
    moved = outline.cavity[0] - outline.cavity[2]
    assert moved[here] < 0.2 * moved[across]


def test_outlines_are_finite_and_nested_for_every_heart():
    hearts = draw_hearts(np.random.default_rng(9), 300)
    z, systole = np.repeat(np.arange(-60.0, 61.0, 10.0), 3), np.tile([0.0, 0.5, 1.0], 13)
    for index in range(300):
        one = dataclasses.replace(hearts, **{k: v[index : index + 1] for k, v in vars(hearts).items()})
        outline = outlines(one, draw_shape(np.random.default_rng(index)), z, systole)
        assert (outline.cavity >= 0).all()
        assert (outline.outer >= outline.cavity).all()
        assert (outline.rv >= outline.outer).all()


def test_blood_is_brighter_than_muscle_and_muscle_than_lung():
    frames = cine(heart(), (8,), size=64, field_mm=140.0).intensity[0, 0]
    levels = np.percentile(frames, [20, 99])
    assert levels[1] > 6 * levels[0]
    assert frames.min() >= 0


def test_spacing_follows_field_and_size():
    volume = cine(heart(), (8,), size=70, field_mm=140.0)
    assert volume.spacing_mm == (10.0, 2.0, 2.0)
    assert volume.intensity.shape == (3, 1, 70, 70)


def test_too_few_frames_or_slices_are_refused():
    with pytest.raises(ValueError, match="2 frames cannot hold"):
        cine(heart(), (8,), size=32, field_mm=140.0, frames=2)
    with pytest.raises(ValueError, match="0 slices"):
        cine(heart(), (8,), size=32, field_mm=140.0, slices=0)
