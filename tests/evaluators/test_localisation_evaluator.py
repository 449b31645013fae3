import numpy as np
import pytest
from heart_world import World, separable, unrelated

from ecgjax.evaluators.localisation import Localisation


def test_all_maps_of_an_example_are_its_own_and_can_be_computed_by_hand():
    world = World(crops=2, batch_size=7)
    results = Localisation(examples=3, scored=20, temperature=0.5).run(separable, world.splits())
    arrays, z = results.arrays, world.latent["test"][:3].astype(float)
    np.testing.assert_array_equal(arrays["record"], world.table["test"].record[:3])
    np.testing.assert_allclose(arrays["ecg_mv"], 2 * world.ecg["test"][:3] + 0.1, rtol=1e-5)
    np.testing.assert_array_equal(arrays["cmr"], world.cmr["test"][:3])
    share = np.linspace(1, 0, 16)[5]
    place = share * z[2] + 1 - share

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    assert arrays["cmr/map"].shape == (3, 4, 4)
    assert arrays["cmr/map"][2, 1, 1] == pytest.approx(2 * cosine(place, z[2]), abs=1e-5)
    shares = np.linspace(1, 0, 20).reshape(2, 10)[:, 3]
    times = [s * z[2] + 1 - s for s in shares]
    assert arrays["ecg/map"].shape == (3, 2, 10)
    assert arrays["ecg/map"][2, 1, 3] == pytest.approx(2 * cosine(times[1], z[2]), abs=1e-5)
    assert arrays["pairwise/map"].shape == (3, 10, 4, 4)
    want = np.mean([2 * cosine(time, place) for time in times])
    assert arrays["pairwise/map"][2, 3, 1, 1] == pytest.approx(want, abs=1e-5)
    assert arrays["attention/map"].shape == (3, 3, 2, 5)


def test_only_the_first_crop_counts():
    want = Localisation().run(separable, World().splits()).scalars
    got = Localisation().run(separable, World(crops=3, batch_size=8).splits()).scalars
    assert got == pytest.approx(want)


def test_shares_and_region():
    splits = World().splits()
    results = Localisation(softmax=True, region=(0.0, 0.0, 0.5, 0.5)).run(separable, splits)
    np.testing.assert_allclose(results.arrays["ecg/map"].sum((1, 2)), 1, rtol=1e-5)
    np.testing.assert_allclose(results.arrays["pairwise/map"].sum((2, 3)), 1, rtol=1e-5)
    assert results.scalars["chance/region"] == 0.25
    # The partner is at the first place, which lies in the region.
    assert 0.25 < results.scalars["cmr/region"] < 1
    whole = Localisation(region=(0.0, 0.0, 1.0, 1.0)).run(separable, splits)
    assert whole.scalars["cmr/region"] == pytest.approx(1)


def test_maps_at_the_size_of_the_input():
    splits = World().splits()
    small, large = (
        Localisation(examples=2, at_input_size=large).run(separable, splits) for large in (False, True)
    )
    shapes = {name: array.shape[1:] for name, array in large.arrays.items() if name.endswith("/map")}
    assert shapes == {
        "ecg/map": (2, 20),
        "cmr/map": (8, 8),
        "pairwise/map": (10, 8, 8),
        "attention/map": (3, 2, 20),
    }
    corner = [results.arrays["cmr/map"][1, 0, 0] for results in (small, large)]
    assert corner[0] == pytest.approx(corner[1])  # Edges are clamped.
    assert large.scalars == small.scalars


def test_the_partner_makes_the_map_where_there_is_content_and_not_otherwise():
    with_content, without = (
        Localisation().run(predict, World().splits()).scalars for predict in (separable, unrelated)
    )
    for half in ("ecg", "cmr"):
        assert with_content[f"{half}/entropy"] < with_content[f"{half}/entropy_other"]
        assert without[f"{half}/entropy"] == pytest.approx(without[f"{half}/entropy_other"], abs=0.01)
        low, high = (with_content[f"{half}/partner_auc/{end}"] for end in ("low", "high"))
        assert low > 0.99
        assert high >= with_content[f"{half}/partner_auc"]


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"examples": 9, "scored": 8}, "scored"),
        ({"upsampling": 3}, "upsampling"),
        ({"temperature": 0.0}, "temperature"),
        ({"region": (0.5, 0.5, 0.6, 0.2)}, "region"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, word):
    with pytest.raises(ValueError, match=word):
        Localisation(**settings)


def test_a_checkpoint_without_a_pair_is_refused_by_name():
    def masked(batch):
        out = separable(batch)
        return {key: out[key] for key in ("ecg/embedding", "reconstruction")}

    with pytest.raises(ValueError, match="cross_modal checkpoint"):
        Localisation().run(masked, World().splits())
