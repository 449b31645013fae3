import numpy as np
import pytest

from ecgjax.signals import cmr
from ecgjax.signals.quality import QualityError


def volume(frames=10, slices=9, size=6):
    """Every voxel is 100 * frame + slice, plus a little across the image, so that origins can be read off."""
    frame, at, row, _ = np.indices((frames, slices, size, size))
    return (100 * frame + at + row / size).astype(np.float64)


def frames_of(image, top):
    """Which frames and slices the channels came from, undoing the scale."""
    values = np.round(image[0, 0] * top).astype(int)
    return [divmod(int(value), 100) for value in values]


@pytest.mark.parametrize(("ed", "es", "mid"), [(0, 4, 2), (0, 5, 2), (2, 7, 4), (8, 3, 0), (9, 2, 0)])
def test_channels_are_es_then_halfway_forward_then_ed(ed, es, mid):
    intensity = volume()
    image = cmr.three_phases(intensity, ed=ed, es=es, clip_percentile=100.0)
    assert image.dtype == np.float32
    assert frames_of(image, intensity.max()) == [(es, 4), (mid, 4), (ed, 4)]


def test_all_frames_are_divided_by_the_percentile_of_the_whole_volume_and_clipped():
    intensity = np.full((4, 8, 5, 5), 10.0)
    intensity[:, 4, 0, 0] = 1000
    intensity[:, 4, 0, 1] = -7
    intensity[:, 4, 1, :] = 5
    image = cmr.three_phases(intensity, ed=0, es=2)
    np.testing.assert_array_equal(image[0, 0], 1)
    np.testing.assert_array_equal(image[0, 1], 0)
    np.testing.assert_array_equal(image[1], 0.5)
    np.testing.assert_array_equal(image[2:], 1)


def damaged(how):
    intensity = volume()
    if how == "nan":
        intensity[0, 0, 0, 0] = np.nan
    elif how == "constant":
        intensity[:] = 3
    elif how == "black":
        intensity[:] = 0
    elif how == "empty":
        intensity = intensity[:, :, :0]
    elif how == "black middle slice":
        intensity[:, 4] = 0
    elif how == "seven slices":
        intensity = intensity[:, :7]
    return intensity


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("nan", "nan"),
        ("constant", "flat"),
        ("black", "flat"),
        ("empty", "flat"),
        ("black middle slice", "flat"),
        ("seven slices", "slices"),
    ],
)
def test_damaged_volumes_are_refused_by_kind(how, kind):
    with pytest.raises(QualityError) as error:
        cmr.three_phases(damaged(how), ed=0, es=4)
    assert error.value.kind == kind


@pytest.mark.parametrize(("ed", "es"), [(3, 3), (0, 10), (-1, 4)])
def test_impossible_phases_are_refused(ed, es):
    with pytest.raises(QualityError, match=f"ED frame {ed} and ES frame {es} must differ") as error:
        cmr.three_phases(volume(), ed=ed, es=es)
    assert error.value.kind == "phases"


def test_a_single_slice_is_allowed_by_setting():
    assert cmr.three_phases(volume(slices=1), ed=0, es=4, min_slices=1).shape == (6, 6, 3)


def test_integer_volumes_give_the_image_of_their_float_twin():
    integers = np.random.default_rng(0).integers(0, 4000, (5, 8, 6, 6)).astype(np.int16)
    want = cmr.three_phases(integers.astype(np.float64), ed=0, es=2)
    np.testing.assert_array_equal(cmr.three_phases(integers, ed=0, es=2), want)


def grid(image, spacing, **settings):
    return cmr.to_grid(image, spacing, **({"pixel_mm": 1.0, "height": 4, "width": 4} | settings))


def test_same_grid_is_untouched_and_crop_and_pad_are_central():
    image = np.random.default_rng(0).random((6, 4, 3))
    np.testing.assert_allclose(grid(image, (1.0, 1.0), height=6), image, atol=1e-7)
    got = grid(image, (1.0, 1.0), height=4, width=7)
    np.testing.assert_allclose(got[:, 1:5], image[1:5], atol=1e-7)
    assert not got[:, [0, 5, 6]].any()


def test_integer_shrinking_is_the_block_mean():
    image = np.random.default_rng(0).random((8, 12, 2))
    want = image.reshape(4, 2, 4, 3, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(grid(image, (0.5, 1 / 3)), want, atol=1e-6)


def test_fractional_shrinking_averages_over_area():
    image = np.array([1.0, 2.0, 4.0]).reshape(3, 1, 1)
    got = grid(image, (1.0, 1.0), pixel_mm=1.5, height=2, width=1)
    # Cells of 1.5 pixels: (1 + 2 / 2) / 1.5 and (2 / 2 + 4) / 1.5. The one column fills 1 / 1.5 of its cell.
    np.testing.assert_allclose(got[:, 0, 0], np.array([2, 5]) / 1.5 / 1.5, rtol=1e-6)


def test_enlarging_interpolates_linearly_and_repeats_the_rim():
    image = np.array([[0.0, 1.0], [0.0, 1.0]])[:, :, None]
    got = grid(image, (2.0, 2.0), height=4, width=6)[..., 0]
    np.testing.assert_allclose(got, np.tile([0, 0, 0.25, 0.75, 1, 0], (4, 1)), atol=1e-6)


@pytest.mark.parametrize("pixel_mm", [0.4, 0.9, 1.0, 1.367, 2.0, 3.3])
def test_a_disc_keeps_its_place_and_area_in_millimetres(pixel_mm):
    y, x = np.indices((120, 100)) - np.array([59.5 + 6, 49.5 - 8])[:, None, None]
    image = (np.hypot(y, x) < 15).astype(np.float64)[..., None]
    size = int(140 / pixel_mm)
    got = grid(image, (1.0, 1.0), pixel_mm=pixel_mm, height=size, width=size)[..., 0]
    assert 0 <= got.min() <= got.max() <= 1
    assert got.sum() * pixel_mm**2 == pytest.approx(image.sum(), rel=0.03)
    rows, columns = (np.arange(size) - (size - 1) / 2) * pixel_mm, np.arange(size)
    assert (got.sum(1) @ rows) / got.sum() == pytest.approx(6, abs=pixel_mm)
    assert (got.sum(0) @ rows) / got.sum() == pytest.approx(-8, abs=pixel_mm)
    assert len(columns) == size


def test_real_cine_fits_the_grid_of_the_reference(shared_data):
    nibabel = pytest.importorskip("nibabel")
    path = shared_data / "sunnybrook" / "cine" / "SCD0000101_sax.nii.gz"
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    file = nibabel.load(path)
    intensity = np.asarray(file.dataobj).transpose(3, 2, 1, 0)  # To frame, slice, y, x.
    phases = cmr.three_phases(intensity, ed=18, es=7)
    zooms = file.header.get_zooms()
    image = cmr.to_grid(phases, (float(zooms[1]), float(zooms[0])), pixel_mm=1.8, height=210, width=210)
    assert image.shape == (210, 210, 3)
    assert 0 == image.min() < image.max() <= 1
    inside = image[60:150, 60:150]
    assert inside.std() > 0.1
    assert not image[:40].any()  # 144 px of 1.37 mm fill 109 of the 210 rows.
