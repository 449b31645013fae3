import numpy as np
import pytest

from ecgjax.reports import embedding_map as maps


def cloud(n=60, d=6):
    """Two directions hold the variance, in shares of 0.64 and 0.36; two groups lie apart."""
    generator = np.random.default_rng(0)
    basis = np.linalg.qr(generator.normal(size=(d, d)))[0][:2]
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    plane = np.stack([0.8 * np.cos(angle), 0.6 * np.sin(angle)], axis=1)
    return (plane @ basis + 3).astype(np.float32), (np.cos(angle) > 0).astype(np.float32)


def test_components_are_those_that_made_the_cloud():
    embedding, _ = cloud()
    got = maps.principal_components(embedding)
    np.testing.assert_allclose(got.explained[:3], [0.64, 0.36, 0], atol=1e-6)
    assert got.needed == 2
    np.testing.assert_allclose(got.scores.std(0) ** 2, [0.32, 0.18], rtol=1e-5)
    # Three of four equal directions are 75 %, so it takes all four.
    assert maps.principal_components(np.concatenate([np.eye(4), -np.eye(4)])).needed == 4


def test_a_collapsed_encoder_and_too_few_embeddings_are_refused():
    with pytest.raises(ValueError, match="collapsed"):
        maps.principal_components(np.ones((5, 3)))
    with pytest.raises(ValueError, match="span no plane"):
        maps.principal_components(np.ones((1, 3)))


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_points_are_coloured_by_the_label_and_missing_ones_are_grey(kind, monkeypatch):
    monkeypatch.setattr(maps, "MOST_NEIGHBOURED", 40)
    embedding, label = cloud()
    label[:5] = np.nan
    figure = maps.embedding_map(embedding, label, label_name="LVEF", kind=kind, unit="%", title="t")
    left, right = figure.axes[:2]
    assert "2 of 6 explain 90%" in left.get_title(loc="left")
    assert right.get_title(loc="left") == "t-SNE of 40, drawn from 60"
    sizes = [len(points.get_offsets()) for points in left.collections]
    assert sum(sizes) == 60
    assert sizes[0] == 5
    if kind == "binary":
        assert {text.get_text() for text in figure.legends[0].get_texts()} == {
            "no LVEF",
            "LVEF",
            "LVEF unknown",
        }
    else:
        assert figure.axes[2].get_ylabel() == "LVEF [%]"


def test_the_map_is_the_same_every_time():
    embedding, _ = cloud()
    np.testing.assert_array_equal(maps.neighbour_map(embedding), maps.neighbour_map(embedding))


def test_an_unknown_label_is_named():
    assert maps.find_label("b", ["a", "b"]) == 1
    with pytest.raises(ValueError, match="choose from a, b"):
        maps.find_label("c", ["a", "b"])
