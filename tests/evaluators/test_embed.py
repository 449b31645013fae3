import dataclasses

import numpy as np
import pytest
from heart_world import World

from ecgjax.evaluators.embed import embed


def crop_dependent(batch):
    return {"ecg/embedding": batch["latent"] + batch["crop"][:, None]}


def test_crops_of_an_example_are_averaged_in_order():
    world = World(crops=4, batch_size=9)
    got = embed(crop_dependent, world.splits(), "test", keys=["ecg/embedding"])["ecg/embedding"]
    np.testing.assert_allclose(got, world.latent["test"] + 1.5, atol=1e-5)


def test_an_example_that_never_comes_is_an_error():
    world = World()
    splits = dataclasses.replace(world.splits(), batches=lambda split: list(world.batches(split))[:-1])
    with pytest.raises(ValueError, match=r"2 of 130 examples of split test came in no batch"):
        embed(crop_dependent, splits, "test", keys=["ecg/embedding"])


def test_wanted_examples_alone_are_predicted_and_equal_those_of_the_whole():
    world = World(crops=4, batch_size=9)
    rows = []

    def counted(batch):
        rows.append(int(np.sum(batch["mask"])))
        return crop_dependent(batch)

    whole = embed(crop_dependent, world.splits(), "test", keys=["ecg/embedding"])["ecg/embedding"]
    wanted = np.array([7, 3, 100])
    got = embed(counted, world.splits(), "test", keys=["ecg/embedding"], wanted=wanted)["ecg/embedding"]
    np.testing.assert_allclose(got, whole[wanted], atol=1e-6)
    assert sum(rows) == 4 * len(wanted)
