import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.models import localisation as maps

ROWS, COLUMNS, WIDTH = 3, 4, 5


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def linear_by_hand(line, factor):
    """Linear upsampling of [n d] by the formula of half-pixel centres with clamped edges."""
    out = []
    for i in range(len(line) * factor):
        at = min(max((i + 0.5) / factor - 0.5, 0), len(line) - 1)
        low = min(int(at), len(line) - 2)
        out.append((1 - (at - low)) * line[low] + (at - low) * line[low + 1])
    return np.stack(out)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_upsampling_stays_within_a_lead_and_as_one_row_mixes_its_border_with_the_next(factor):
    tokens = draw(2, ROWS * COLUMNS, WIDTH)
    within = maps.upsample_tokens(jnp.asarray(tokens), rows=ROWS, factor=factor)
    across = maps.upsample_tokens(jnp.asarray(tokens), rows=1, factor=factor).reshape(within.shape)
    for b in range(2):
        whole = linear_by_hand(tokens[b], factor).reshape(ROWS, COLUMNS * factor, WIDTH)
        np.testing.assert_allclose(across[b], whole, atol=1e-5)  # Positions are float32 too.
        for row in range(ROWS):
            lead = tokens[b, row * COLUMNS : (row + 1) * COLUMNS]
            np.testing.assert_allclose(within[b, row], linear_by_hand(lead, factor), atol=1e-5)
    differs = ~np.isclose(within, across, atol=1e-5).all((0, 3))
    edges = np.zeros_like(differs)
    edges[1:, : factor // 2] = edges[:-1, COLUMNS * factor - factor // 2 :] = factor > 1
    np.testing.assert_array_equal(differs, edges)


def test_a_lead_does_not_see_its_neighbour():
    tokens = draw(1, ROWS * COLUMNS, WIDTH)
    changed = tokens.copy()
    changed[:, COLUMNS : 2 * COLUMNS] += 10
    before, after = (maps.upsample_tokens(jnp.asarray(x), rows=ROWS, factor=2) for x in (tokens, changed))
    np.testing.assert_array_equal(before[:, [0, 2]], after[:, [0, 2]])


def test_images_are_upsampled_along_both_axes():
    image = draw(1, 3, 4, 2)
    rows = np.stack([linear_by_hand(image[0, :, x], 2) for x in range(4)], axis=1)
    want = np.stack([linear_by_hand(row, 2) for row in rows])
    np.testing.assert_allclose(maps.upsample_image(jnp.asarray(image), factor=2)[0], want, atol=1e-6)


def test_maps_are_cosines_over_temperature():
    ecg, cmr, z = draw(2, ROWS, 6, WIDTH), draw(2, 3, 4, WIDTH, seed=1), draw(2, WIDTH, seed=2)

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    got = maps.importance(jnp.asarray(cmr), jnp.asarray(z), temperature=0.8)
    assert got[1, 2, 3] == pytest.approx(cosine(cmr[1, 2, 3], z[1]) / 0.8, abs=1e-6)
    pair = {"ecg": jnp.asarray(ecg), "cmr": jnp.asarray(cmr)}
    got = maps.pairwise_importance(**pair, temperature=0.8)
    by_lead = [cosine(ecg[1, lead, 5], cmr[1, 2, 3]) / 0.8 for lead in range(ROWS)]
    assert got[1, 5, 2, 3] == pytest.approx(np.mean(by_lead), abs=1e-6)
    shares = maps.pairwise_importance(**pair, softmax=True)
    np.testing.assert_allclose(shares.sum((2, 3)), 1, rtol=1e-5)
    np.testing.assert_allclose(maps.softmax_map(got[0]).sum((1, 2)), 1, rtol=1e-5)


def test_received_attention_follows_the_key_that_all_queries_choose():
    rows, columns = 2, 3
    scores = np.zeros((1, 1, 7, 7), np.float32)
    scores[..., 5] = 8.0  # Every token looks at patch 4: second row, second column.
    scores[:, :, 0, 5], scores[:, :, 0, 2] = 0.0, 8.0  # The class token at patch 1.
    attention = jax.nn.softmax(jnp.asarray(scores), axis=-1)
    by_patches = maps.received_attention(attention, rows=rows, from_class=False)
    by_class = maps.received_attention(attention, rows=rows, from_class=True)
    assert by_patches.shape == (1, 1, rows, columns)
    assert np.unravel_index(by_patches[0, 0].argmax(), (rows, columns)) == (1, 1)
    assert np.unravel_index(by_class[0, 0].argmax(), (rows, columns)) == (0, 1)
    for got in (by_patches, by_class):
        np.testing.assert_allclose(got.sum((2, 3)), 1, rtol=1e-5)


def test_attention_given_says_nothing_about_which_patches_are_looked_at():
    # What the reference plots of a fine-tuned encoder: the mean over keys of each query's row.
    scores = 4 * draw(1, 1, 13, 13)
    moved = np.concatenate([scores[..., :1], scores[..., :0:-1]], axis=-1)  # Other patches get the attention.
    first, second = (jax.nn.softmax(jnp.asarray(x), axis=-1) for x in (scores, moved))
    given = [a[:, :, 1:, 1:].mean(-1) for a in (first, second)]
    np.testing.assert_allclose(*given, rtol=1e-4)
    np.testing.assert_allclose(given[0], (1 - first[:, :, 1:, 0]) / 12, rtol=1e-4)
    received = [maps.received_attention(a, rows=3, from_class=False) for a in (first, second)]
    assert np.abs(received[0] - received[1]).max() > 0.05


def test_wrong_rows_are_named():
    with pytest.raises(ValueError, match="12 tokens"):
        maps.upsample_tokens(jnp.zeros((1, 12, 4)), rows=5, factor=2)
    with pytest.raises(ValueError, match="12 patches"):
        maps.received_attention(jnp.ones((1, 1, 13, 13)), rows=5, from_class=False)
