import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from ecgjax.augment import image as ops


def draw(height=12, width=12, channels=3):
    return jax.random.uniform(jax.random.key(5), (height, width, channels))


def test_quarter_turn_is_exact_and_anticlockwise():
    image = draw()
    grid = ops.source_grid(image.shape, angle=jnp.float32(np.pi / 2))
    for sample in (ops.sample_nearest, ops.sample_bilinear):
        np.testing.assert_allclose(sample(image, *grid), np.rot90(image), atol=1e-5)


@pytest.mark.parametrize(("sample", "order"), [(ops.sample_nearest, 0), (ops.sample_bilinear, 1)])
def test_resampling_equals_scipy_inside_and_is_zero_outside(sample, order):
    image = draw(9, 14)
    row, column = ops.source_grid(
        image.shape,
        angle=jnp.float32(0.4),
        shift=jnp.array([0.1, -0.2]),
        magnification=jnp.float32(1.1),
    )
    got = sample(image, row, column)
    coordinates = [np.asarray(row), np.asarray(column)]
    for c in range(3):
        want = scipy.ndimage.map_coordinates(
            np.pad(image[..., c], 4), [x + 4 for x in coordinates], order=order, mode="constant"
        )
        np.testing.assert_allclose(got[..., c], want, atol=1e-5)
    far = jnp.full((2, 2), 40.0)
    np.testing.assert_array_equal(sample(image, far, far), 0)


def test_magnification_and_shift_move_a_point_as_stated():
    image = jnp.zeros((21, 21, 1)).at[10, 14].set(1.0)
    grid = ops.source_grid(
        image.shape, angle=jnp.float32(0), shift=jnp.array([2 / 21, 0.0]), magnification=jnp.float32(2.0)
    )
    out = np.asarray(ops.sample_bilinear(image, *grid))[..., 0]
    assert np.unravel_index(out.argmax(), out.shape) == (12, 18)  # 2 down; 4 right of the centre becomes 8.


def test_flip_mirrors_columns():
    image = draw()
    np.testing.assert_array_equal(
        ops.horizontal_flip(jax.random.key(0), image, probability=1.0), image[:, ::-1]
    )


def test_colour_operations_equal_numpy_in_their_order():
    image = np.asarray(draw(), np.float64)
    factors = [1.4, 0.6, 1.5]
    for order in ([0, 1, 2], [2, 0, 1]):
        want = image
        for operation in order:
            luma = want @ np.array([0.2989, 0.587, 0.114])
            other = [np.zeros_like(luma), np.full_like(luma, luma.mean()), luma][operation][..., None]
            want = np.clip(factors[operation] * want + (1 - factors[operation]) * other, 0, 1)
        got = ops.colour_jitter_by(draw(), jnp.array(factors), jnp.array(order))
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_no_strength_leaves_colours_alone():
    image, key = draw(), jax.random.key(0)
    same = ops.colour_jitter(key, image, brightness=0.0, contrast=0.0, saturation=0.0)
    np.testing.assert_allclose(same, image, atol=1e-6)
    same = ops.brightness_contrast(key, image, brightness=0.0, contrast=0.0)
    np.testing.assert_allclose(same, image, atol=1e-6)


def test_a_box_is_resized_with_half_pixel_centres_and_repeated_edges():
    image = jnp.arange(8.0)[None, :, None] * jnp.ones((4, 1, 1))
    box = {"top": jnp.float32(0), "high": jnp.float32(4), "left": jnp.float32(2), "wide": jnp.float32(4)}
    out = ops.resize_box(image, **box)
    want = np.clip(2 + (np.arange(8) + 0.5) / 2 - 0.5, 2, 5)
    np.testing.assert_allclose(out[..., 0], np.tile(want, (4, 1)), atol=1e-5)


def test_random_boxes_keep_the_stated_share_and_ratio():
    row, column = jnp.meshgrid(jnp.arange(100.0), jnp.arange(100.0), indexing="ij")
    image = jnp.stack([row, column], -1)
    crops = jax.jit(jax.vmap(lambda key: ops.random_resized_crop(key, image, area=(0.6, 1.0))))(
        jax.random.split(jax.random.key(0), 300)
    )
    high = np.asarray(crops[:, -1, 0, 0] - crops[:, 0, 0, 0]) + 1
    wide = np.asarray(crops[:, 0, -1, 1] - crops[:, 0, 0, 1]) + 1
    share = high * wide / 1e4
    assert 0.59 < share.min() < 0.65
    assert 0.9 < share.max() <= 1.01
    assert 0.74 < (wide / high).min() < 0.85
    assert 1.15 < (wide / high).max() < 1.34
