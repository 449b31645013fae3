import contextlib
import json
import shutil

import jax
import numpy as np
import pytest

from ecgjax.core import distributed, trees
from ecgjax.core import mesh as meshes
from ecgjax.train import checkpoint, checkpoint_files, checkpoint_writing
from ecgjax.train.checkpoint_writing import Checkpoints
from ecgjax.train.state import TrainState

META = {"config": {"seed": 1}, "labels": [1.5, None]}
SAVED = {**META, "format": 2}


def make_state(step=0, mesh=None, width=8):
    draw = np.random.default_rng(step)
    kernel = {"kernel": draw.normal(size=(width, 4)).astype(np.float32)}
    tree = TrainState(
        np.asarray(step, np.int32), kernel, {}, {"mu": dict(kernel), "count": np.asarray(step, np.int32)}
    )
    mesh = mesh or meshes.make_mesh(devices=jax.devices()[:1])
    return jax.device_put(tree, meshes.shardings(tree, mesh))


def abstract(state):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


@contextlib.contextmanager
def opened(workdir, **options):
    checkpoints = Checkpoints(workdir, **options)
    try:
        yield checkpoints
    finally:
        checkpoints.close()


def save(workdir, *numbers, **options):
    with opened(workdir, **options) as checkpoints:
        for step in numbers:
            checkpoints.save(make_state(step), step, META)


def restore(workdir, state=None):
    with opened(workdir) as checkpoints:
        return checkpoints.restore_latest(abstract(state or make_state()))


def said(meta):
    """What the run wrote, and the format; not what is known of the arrays."""
    return {name: value for name, value in meta.items() if name != checkpoint_files.FINGERPRINTS}


def test_a_state_comes_back_bit_for_bit_with_its_position_and_meta(tmp_path):
    save(tmp_path, 0, 3)
    read = restore(tmp_path)
    assert trees.digest(read.state) == trees.digest(make_state(3))
    assert said(read.meta) == SAVED
    assert read.next_batch == 3


def mesh_of(count, fsdp=1):
    return meshes.make_mesh(devices=jax.devices()[:count], fsdp=fsdp)


SHAPES = [(1, 1), (2, 2), (4, 1), (4, 2), (8, 1), (8, 8)]
"""Devices, and among how many of them parameters are split."""


@pytest.fixture(
    scope="module", params=[(1, 1), (8, 1), (8, 4)], ids=lambda shape: "from {} fsdp {}".format(*shape)
)
def written(request, tmp_path_factory):
    """A checkpoint written on a mesh, of a state whose leaves are split there."""
    workdir = tmp_path_factory.mktemp("written")
    with opened(workdir) as checkpoints:
        checkpoints.save(make_state(3, mesh_of(*request.param)), 3, META)
    return workdir


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "to {} fsdp {}".format(*shape))
def test_what_some_devices_wrote_is_resumed_on_any_other_bitwise(written, shape):
    wanted = make_state(3, mesh_of(*shape))
    read = restore(written, wanted)
    assert trees.digest(read.state) == trees.digest(wanted)
    for got, want in zip(jax.tree.leaves(read.state), jax.tree.leaves(wanted), strict=True):
        assert got.sharding.is_equivalent_to(want.sharding, got.ndim)


def make_towers(mesh):
    draw = np.random.default_rng(0)

    def tower():
        return {
            name: {"kernel": draw.normal(size=(8, 16)).astype(np.float32)} for name in ("encoder", "head")
        }

    params = {"ecg": tower(), "cmr": tower()}
    state = TrainState(np.asarray(3, np.int32), params, {"cmr": {"encoder": {"mean": np.ones(8)}}}, {})
    return jax.device_put(state, meshes.shardings(state, mesh))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_an_encoder_alone_is_read_without_touching_the_rest(tmp_path, count):
    with opened(tmp_path) as checkpoints:
        checkpoints.save(make_towers(mesh_of(8, 4)), 3, META)
    want = make_towers(mesh_of(count, count))
    shapes = abstract(want)
    params, extra = checkpoint.read_params(
        tmp_path, 3, shapes.params, shapes.extra, wanted=lambda name: name.startswith("ecg/encoder/")
    )
    got = params["ecg"]["encoder"]["kernel"]
    np.testing.assert_array_equal(got, want.params["ecg"]["encoder"]["kernel"])
    assert got.sharding.is_equivalent_to(want.params["ecg"]["encoder"]["kernel"].sharding, 2)
    unread = [params["ecg"]["head"], params["cmr"], extra]
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(unread))


def test_an_encoder_is_read_although_the_rest_is_gone(tmp_path):
    with opened(tmp_path) as checkpoints:
        checkpoints.save(make_towers(mesh_of(1)), 3, META)
    shutil.rmtree(tmp_path / "checkpoints" / "3" / "extra")
    shapes = abstract(make_towers(mesh_of(1)))

    def encoder(name):
        return name.startswith("ecg/encoder/")

    checkpoint.read_params(tmp_path, 3, shapes.params, shapes.extra, wanted=encoder)
    with pytest.raises(ValueError, match=r"checkpoint 3 of .* cannot be read"):
        checkpoint.read_params(tmp_path, 3, shapes.params, shapes.extra)


def test_a_leaf_that_is_wanted_and_absent_is_an_error(tmp_path):
    save(tmp_path, 3)
    shape = jax.ShapeDtypeStruct((8, 4), np.float32)
    with pytest.raises(ValueError, match=r"checkpoint 3 of .* cannot be read"):
        checkpoint.read_params(tmp_path, 3, {"encoder": {"kernel": shape}}, {}, wanted=lambda name: True)


def test_what_is_saved_is_the_state_at_the_call_even_if_donated_at_once(tmp_path):
    step = jax.jit(
        lambda s: TrainState(s.step + 1, jax.tree.map(lambda x: x * 0 - 1, s.params), s.extra, s.opt_state),
        donate_argnums=0,
    )
    state = make_state(2, width=4096)
    want = trees.digest(state)
    with opened(tmp_path) as checkpoints:
        checkpoints.save(state, 0, META)
        for _ in range(5):
            state = step(state)
        jax.block_until_ready(state)
    read = restore(tmp_path, make_state(width=4096))
    assert trees.digest(read.state) == want


def damage_missing(directory):
    next((directory / "params").rglob("manifest.ocdbt")).unlink()


def damage_cut(directory):
    for path in (directory / "params").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_within(directory, tree="params"):
    """As long as before, but the second half of the values is zeros."""
    found = [path for path in (directory / tree).rglob("d/*") if path.is_file()]
    largest = max(found, key=lambda path: path.stat().st_size)
    content = largest.read_bytes()
    largest.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))


def damage_position(directory):
    (directory / "data" / "metadata").write_text("{")


def damage_position_kind(directory):
    (directory / "data" / "metadata").write_text('{"next_index": 6}')


def damage_meta(directory):
    (directory / "meta" / "metadata").write_text('{"config":')


def damage_item(directory):
    shutil.rmtree(directory / "opt_state")


def damage_marker(directory):
    (directory / "commit_success.txt").unlink()


def damage_all(directory):
    shutil.rmtree(directory)
    directory.mkdir()


def damage_emptied(directory):
    for path in (directory / "params").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


DAMAGES = [
    *(damage_missing, damage_cut, damage_emptied, damage_item),
    *(damage_position, damage_position_kind, damage_meta),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_half_written_checkpoint_is_set_aside_and_the_one_before_taken(tmp_path, damage, capsys):
    save(tmp_path, 0, 3, 6)
    damage(tmp_path / "checkpoints" / "6")
    read = restore(tmp_path)
    assert trees.digest(read.state) == trees.digest(make_state(3))
    assert read.next_batch == 3
    assert (tmp_path / "damaged" / "6").is_dir()
    assert checkpoint.steps(tmp_path) == [0, 3]
    said = capsys.readouterr().err
    assert "checkpoint 6" in said
    assert "falling back" in said


WIDE = 4096
"""So many rows that values, and not what is known of them, make most of a file."""


@pytest.mark.parametrize("tree", ["params", "opt_state"])
@pytest.mark.parametrize(("count", "fsdp"), [(1, 1), (8, 4)])
def test_zeros_in_a_file_are_found_on_any_mesh(tmp_path, tree, count, fsdp, capsys):
    with opened(tmp_path) as checkpoints:
        for step in (3, 6):
            checkpoints.save(make_state(step, mesh_of(8, 2), WIDE), step, META)
    damage_within(tmp_path / "checkpoints" / "6", tree)
    read = restore(tmp_path, make_state(0, mesh_of(count, fsdp), WIDE))
    assert trees.digest(read.state) == trees.digest(make_state(3, width=WIDE))
    assert "checkpoint 6" in capsys.readouterr().err


def test_zeros_in_a_file_are_told_to_readers(tmp_path):
    state = make_state(3, width=WIDE)
    with opened(tmp_path) as checkpoints:
        checkpoints.save(state, 3, META)
    damage_within(tmp_path / "checkpoints" / "3")
    shapes = abstract(state)
    for wanted in (None, lambda name: True):
        with pytest.raises(ValueError, match=r"checkpoint 3 of .* cannot be read"):
            checkpoint.read_params(tmp_path, 3, shapes.params, shapes.extra, wanted=wanted)
    params, _ = checkpoint.read_params(tmp_path, 3, shapes.params, shapes.extra, wanted=lambda name: False)
    assert params == shapes.params


@pytest.mark.parametrize("damage", [damage_marker, damage_all])
def test_a_save_that_was_never_committed_is_no_checkpoint(tmp_path, damage):
    save(tmp_path, 0, 3, 6)
    damage(tmp_path / "checkpoints" / "6")
    assert checkpoint.steps(tmp_path) == [0, 3]
    read = restore(tmp_path)
    assert trees.digest(read.state) == trees.digest(make_state(3))
    assert checkpoint.steps(tmp_path) == [0, 3]
    with opened(tmp_path) as checkpoints:  # What lies there is not in the way.
        checkpoints.save(make_state(6), 6, META)
    assert trees.digest(restore(tmp_path).state) == trees.digest(make_state(6))


def test_damage_upon_damage_falls_back_further(tmp_path):
    save(tmp_path, 0, 3, 6)
    damage_cut(tmp_path / "checkpoints" / "6")
    damage_meta(tmp_path / "checkpoints" / "3")
    read = restore(tmp_path)
    assert trees.digest(read.state) == trees.digest(make_state(0))
    assert sorted(path.name for path in (tmp_path / "damaged").iterdir()) == ["3", "6"]


@pytest.fixture
def second(monkeypatch):
    """Makes this the first of two processes, the other of which sees these steps, one list a question."""
    monkeypatch.setattr(checkpoint_writing, "_LATE_S", (0.0, 0.0))

    def add(*lists):
        answers = list(lists)

        def gather(name, value):
            return [value, json.dumps(answers.pop(0)) if name == "steps" else value]

        monkeypatch.setattr(distributed, "gather", gather)

    return add


def test_processes_restore_once_a_late_file_system_shows_them_the_same(tmp_path, second):
    save(tmp_path, 0, 3)
    second([0], [0], [0, 3])
    assert int(restore(tmp_path).state.step) == 3


def test_processes_that_never_see_the_same_checkpoints_restore_none(tmp_path, second):
    save(tmp_path, 0, 3)
    second([0], [0], [0])
    with pytest.raises(ValueError, match=r"sees checkpoints \[0\] in .*, process 0 \[0, 3\]; .*all share"):
        restore(tmp_path)
    assert checkpoint.steps(tmp_path) == [0, 3]


def test_after_a_fall_back_the_step_is_saved_anew(tmp_path):
    save(tmp_path, 0, 3)
    damage_missing(tmp_path / "checkpoints" / "3")
    with opened(tmp_path) as checkpoints:
        checkpoints.restore_latest(abstract(make_state()))
        checkpoints.save(make_state(3), 3, META)
    assert trees.digest(restore(tmp_path).state) == trees.digest(make_state(3))


def test_a_model_of_another_shape_is_an_error_and_no_damage(tmp_path):
    save(tmp_path, 0, 3)
    with pytest.raises(
        ValueError, match=r"checkpoint 3 .* another model: params/kernel is \(8, 4\), needed \(6, 4\)"
    ):
        restore(tmp_path, make_state(width=6))
    assert checkpoint.steps(tmp_path) == [0, 3]
    assert not (tmp_path / "damaged").exists()


def test_what_a_killed_save_left_is_ignored_and_removed(tmp_path):
    save(tmp_path, 0, 3)
    left = tmp_path / "checkpoints" / "6.orbax-checkpoint-tmp-1"
    left.mkdir()
    (left / "params").mkdir()
    assert checkpoint.steps(tmp_path) == [0, 3]
    read = restore(tmp_path)
    assert int(read.state.step) == 3
    assert not left.exists()


def test_a_directory_without_the_final_marker_is_no_checkpoint(tmp_path):
    save(tmp_path, 0, 3)
    (tmp_path / "checkpoints" / "3" / "commit_success.txt").unlink()
    assert checkpoint.steps(tmp_path) == [0]
    assert int(restore(tmp_path).state.step) == 0


def test_nothing_is_restored_from_an_empty_workdir(tmp_path):
    assert restore(tmp_path) is None


def test_the_last_steps_and_the_first_are_kept(tmp_path):
    save(tmp_path, 0, 2, 4, 6, 8, keep=2, preserve=(0,))
    assert checkpoint.steps(tmp_path) == [0, 6, 8]


def test_keeping_fewer_than_two_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"config\.checkpoint\.keep is 1; at least 2"):
        Checkpoints(tmp_path, keep=1)


def test_choosing_a_step(tmp_path):
    save(tmp_path, 0, 3)
    assert checkpoint.choose_step(tmp_path) == 3
    assert checkpoint.choose_step(tmp_path, 0) == 0
    with pytest.raises(ValueError, match=r"no checkpoint of step 2; it holds \[0, 3\]"):
        checkpoint.choose_step(tmp_path, 2)


def test_an_empty_or_foreign_workdir_is_said(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "notes.txt").write_text("")
    for workdir in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match="holds no checkpoint; it is empty, foreign"):
            checkpoint.choose_step(workdir)
    assert not (tmp_path / "nowhere").exists()


def test_readers_get_parameters_and_meta_without_the_optimiser(tmp_path):
    save(tmp_path, 0, 3)
    want = make_state(3)
    assert said(checkpoint.read_meta(tmp_path, 3)) == SAVED
    params, extra = checkpoint.read_params(tmp_path, 3, abstract(want.params), {})
    assert trees.digest(params) == trees.digest(want.params)
    assert extra == {}


def test_a_damaged_checkpoint_tells_readers_what_else_there_is(tmp_path):
    save(tmp_path, 0, 3)
    damage_missing(tmp_path / "checkpoints" / "3")
    damage_meta(tmp_path / "checkpoints" / "3")
    message = r"checkpoint 3 of .* cannot be read.*choose another step of \[0, 3\]"
    with pytest.raises(ValueError, match=message):
        checkpoint.read_meta(tmp_path, 3)
    with pytest.raises(ValueError, match=message):
        checkpoint.read_params(tmp_path, 3, abstract(make_state(3).params), {})


def test_an_optimiser_of_another_structure_is_an_error_and_no_damage(tmp_path):
    save(tmp_path, 0, 3)
    state = make_state()
    with pytest.raises(ValueError, match=r"another model: opt_state/(count|nu)"):
        restore(
            tmp_path, state._replace(opt_state={"mu": state.opt_state["mu"], "nu": state.opt_state["mu"]})
        )
    assert checkpoint.steps(tmp_path) == [0, 3]


def test_a_relative_workdir_is_as_good_as_an_absolute_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save("run", 4)
    assert checkpoint.steps(tmp_path / "run") == [4]
    assert said(checkpoint.read_meta("run", 4)) == SAVED


def rewrite_meta(workdir, step, **changes):
    path = workdir / "checkpoints" / str(step) / "meta" / "metadata"
    meta = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in meta.items() if value is not None}))


@pytest.mark.parametrize(("number", "found"), [(None, 1), (1, 1), (3, 3)], ids=["absent", "older", "newer"])
def test_another_format_is_refused_with_the_way_out_and_left_alone(tmp_path, number, found):
    save(tmp_path, 0, 3)
    rewrite_meta(tmp_path, 3, format=number, version="0.0.9")
    message = rf"checkpoint 3 of .* has format {found}, written by ecgjax 0\.0\.9; .*init_from\.workdir="
    with pytest.raises(ValueError, match=message):
        checkpoint.check_resumable(tmp_path)
    with pytest.raises(ValueError, match=message):
        restore(tmp_path)
    assert checkpoint.steps(tmp_path) == [0, 3]
    assert not (tmp_path / "damaged").exists()
    params, _ = checkpoint.read_params(tmp_path, 3, abstract(make_state(3).params), {})
    assert trees.digest(params) == trees.digest(make_state(3).params)


def test_what_is_new_or_of_this_format_may_be_resumed(tmp_path):
    checkpoint.check_resumable(tmp_path)
    save(tmp_path, 0, 3)
    checkpoint.check_resumable(tmp_path)
    damage_meta(tmp_path / "checkpoints" / "3")  # For the restore to fall back.
    checkpoint.check_resumable(tmp_path)
