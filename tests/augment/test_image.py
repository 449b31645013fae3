import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from ecgjax.augment import image as ops


def draw(height=12, width=12, channels=3):
    return jax.random.uniform(jax.random.key(5), (height, width, channels))


def over_keys(function, n=3000):
    return np.asarray(jax.jit(jax.vmap(function))(jax.random.split(jax.random.key(0), n)))


def test_quarter_turn_is_exact_and_anticlockwise_no_turn_changes_nothing():
    image = draw()
    np.testing.assert_allclose(
        jax.jit(ops.rotate_by)(image, jnp.float32(np.pi / 2)), np.rot90(image), atol=1e-5
    )
    np.testing.assert_array_equal(jax.jit(ops.rotate_by)(image, jnp.float32(0)), image)


@pytest.mark.parametrize(("sample", "order"), [(ops.sample_nearest, 0), (ops.sample_bilinear, 1)])
def test_resampling_equals_scipy_inside_and_is_zero_outside(sample, order):
    image = draw(9, 14)

    @jax.jit
    def resample(image):
        grid = ops.source_grid(
            image.shape,
            angle=jnp.float32(0.4),
            shift=jnp.array([0.1, -0.2]),
            magnification=jnp.float32(1.1),
        )
        return *grid, sample(image, *grid), sample(image, *(jnp.full((2, 2), 40.0),) * 2)

    row, column, got, far = resample(image)
    coordinates = [np.asarray(row), np.asarray(column)]
    for c in range(3):
        want = scipy.ndimage.map_coordinates(
            np.pad(image[..., c], 4), [x + 4 for x in coordinates], order=order, mode="constant"
        )
        np.testing.assert_allclose(got[..., c], want, atol=1e-5)
    np.testing.assert_array_equal(far, 0)


def test_magnification_and_shift_move_a_point_as_stated():
    image = jnp.zeros((21, 21, 1)).at[10, 14].set(1.0)

    @jax.jit
    def move(image):
        shift, twice = jnp.array([2 / 21, 0.0]), jnp.float32(2.0)
        grid = ops.source_grid(image.shape, angle=jnp.float32(0), shift=shift, magnification=twice)
        return ops.sample_bilinear(image, *grid)

    out = np.asarray(move(image))[..., 0]
    assert np.unravel_index(out.argmax(), out.shape) == (12, 18)  # 2 down; 4 right of the centre becomes 8.


def test_flip_mirrors_columns_at_its_probability():
    image = draw(2, 3)
    outs = over_keys(lambda key: ops.horizontal_flip(key, image, probability=0.3))
    mirrored = (outs == np.asarray(image[:, ::-1])).all((1, 2, 3))
    assert (mirrored | (outs == np.asarray(image)).all((1, 2, 3))).all()
    assert abs(mirrored.mean() - 0.3) < 0.03


def test_angles_are_uniform_and_gated(monkeypatch):
    monkeypatch.setattr(ops, "rotate_by", lambda image, angle: jnp.full_like(image, jnp.rad2deg(angle)))
    image = jnp.zeros((1, 1, 1))
    always = over_keys(lambda key: ops.rotate(key, image, degrees=45.0)).ravel()
    np.testing.assert_allclose([always.min(), always.mean(), always.max()], [-45, 0, 45], atol=1.5)
    np.testing.assert_allclose(always.var(), 90**2 / 12, rtol=0.05)
    gated = over_keys(lambda key: ops.rotate(key, image, degrees=45.0, probability=0.5)).ravel()
    assert abs(np.mean(gated == 0) - 0.5) < 0.03
    np.testing.assert_allclose(gated[gated != 0].var(), 90**2 / 12, rtol=0.08)


def test_a_box_is_resized_with_half_pixel_centres_and_repeated_edges():
    image = jnp.arange(8.0)[None, :, None] * jnp.ones((4, 1, 1))
    box = {"top": 0.0, "high": 4.0, "left": 2.0, "wide": 4.0}
    out = jax.jit(ops.resize_box)(image, **jax.tree.map(jnp.float32, box))
    want = np.clip(2 + (np.arange(8) + 0.5) / 2 - 0.5, 2, 5)
    np.testing.assert_allclose(out[..., 0], np.tile(want, (4, 1)), atol=1e-5)


def boxes(area, *, height=40, width=40, **options):
    """Top, left, height and width of the boxes drawn on an image."""

    def record(image, *, top, left, high, wide):
        return jnp.broadcast_to(jnp.stack([top, left, high, wide]), image.shape)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ops, "resize_box", record)
        blank = jnp.zeros((height, width, 4))
        draw = lambda key: ops.random_resized_crop(key, blank, area=area, **options)[0, 0]  # noqa: E731
        return over_keys(draw).T


def test_random_boxes_have_the_stated_shares_ratios_and_places():
    # So small that the first box always fits: the shares and ratios are then those drawn.
    top, left, high, wide = boxes((0.08, 0.3), height=400, width=400)
    share, ratio = high * wide / 400**2, np.log(wide / high)
    np.testing.assert_allclose([share.min(), share.mean(), share.max()], [0.08, 0.19, 0.3], atol=0.004)
    np.testing.assert_allclose(share.var(), 0.22**2 / 12, rtol=0.05)
    bound = np.log(4 / 3)
    np.testing.assert_allclose([ratio.min(), ratio.mean(), ratio.max()], [-bound, 0, bound], atol=0.02)
    np.testing.assert_allclose(ratio.var(), bound**2 / 3, rtol=0.06)
    for start, size in ((top, high), (left, wide)):
        place = start / (400 - size)
        assert place.min() >= 0
        assert place.max() <= 1
        np.testing.assert_allclose([place.mean(), place.var()], [0.5, 1 / 12], rtol=0.06)


def test_large_boxes_stay_inside_and_reach_the_whole_image():
    top, left, high, wide = boxes((0.6, 1.0))
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + high).max() == (left + wide).max() == 40
    share = high * wide / 1600
    assert 0.58 < share.min() < 0.62
    assert share.max() == 1


def test_the_largest_central_box_serves_where_none_fits():
    drawn = boxes((1.0, 1.0), height=20, width=40, tries=1)
    np.testing.assert_array_equal(np.unique(drawn, axis=1).T, [[0, 6, 20, 27]])


def test_the_heart_is_cut_where_the_reference_cuts_it():
    row, column = jnp.meshgrid(jnp.arange(210.0), jnp.arange(210.0), indexing="ij")
    image = jnp.stack([row, column], -1)
    out = np.asarray(jax.jit(ops.roi)(image))
    assert out.shape == image.shape
    np.testing.assert_allclose(out[[0, -1], 0, 0], [44, 44 + 77], atol=1e-4)
    np.testing.assert_allclose(out[0, [0, -1], 1], [68, 68 + 77], atol=1e-4)
    centre = np.clip((np.arange(210) + 0.5) * 78 / 210 - 0.5, 0, 77)
    np.testing.assert_allclose(out[:, 5, 0], 44 + centre, atol=1e-4)
    np.testing.assert_allclose(ops.roi(jnp.stack([image, 2 * image])), np.stack([out, 2 * out]), atol=1e-3)


def test_the_heart_must_lie_inside():
    with pytest.raises(ValueError, match=r"box \(0\.7, 0\.1, 0\.5\) of an image of 20 x 30; choose shares"):
        ops.roi(draw(20, 30), box=(0.7, 0.1, 0.5))
    with pytest.raises(ValueError, match="choose shares that stay inside"):
        ops.roi(draw(2, 2))


@pytest.mark.parametrize("size", [(5, 9), (20, 30)])
def test_resizing_is_linear_between_half_pixel_centres(size):
    image = np.asarray(draw(10, 13))
    got = ops.resize(jnp.asarray(image), height=size[0], width=size[1])
    rows, columns = (
        np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        for old, new in zip((10, 13), size, strict=True)
    )
    grid = np.meshgrid(rows, columns, indexing="ij")
    want = [scipy.ndimage.map_coordinates(image[..., c], grid, order=1) for c in range(3)]
    np.testing.assert_allclose(got, np.stack(want, -1), atol=1e-5)
