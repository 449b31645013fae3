"""What a run measures of itself, as its command line and its devices say."""

import collections

import jax
import pytest
from etils import epath
from killed_runs import make_config, make_mean

from ecgjax.core import chips
from ecgjax.core import config as configs
from ecgjax.data.manifest import read_manifest
from ecgjax.objectives import OBJECTIVES
from ecgjax.runs import measuring, training
from ecgjax.runs.assemble import Data, abstract_batch, assemble


def test_a_bad_range_is_refused_before_any_work(masked_config, tmp_path):
    with pytest.raises(
        ValueError, match=r"--profile=4:9 ends beyond config\.steps = 8; choose STOP up to there"
    ):
        training.train(masked_config, epath.Path(tmp_path / "run"), profile="4:9")
    assert not (tmp_path / "run").exists()


def test_where_the_peak_is_known_mfu_is_of_the_whole_global_batch(masked_config, monkeypatch, capsys):
    monkeypatch.setattr(chips, "of_kind", lambda _: chips.TPUS["v5e"])
    gauges = []
    for size in (8, 16):
        masked_config.data.batch_size = size
        config = configs.plain(masked_config)
        data = Data.of(read_manifest(config["data"]["directory"]), {})
        run = assemble(config, data)
        gauges.append(measuring.gauge(run, abstract_batch(config, data, run)))
    assert [(g.chips, g.peak) for g in gauges] == [(8, 197e12)] * 2
    assert gauges[1].flops == 2 * gauges[0].flops > 0
    assert capsys.readouterr().err == ""


def test_a_run_beyond_the_range_says_that_nothing_is_profiled(tmp_path, capsys):
    with measuring.profile((2, 4), epath.Path(tmp_path), step=4) as profile:
        profile.at(4, {})
    assert "--profile=2:4: the run goes on from step 4; nothing is profiled." in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_each_step_is_traced_once_the_check_before_any_work_included(tiny_data, tmp_path, monkeypatch):
    traced = collections.Counter()

    def note(event, _seconds, **about):
        if event == "/jax/core/compile/jaxpr_trace_duration":
            traced[about["fun_name"]] += 1

    monkeypatch.setitem(OBJECTIVES, "mean", make_mean)
    config = make_config(str(tiny_data))
    config.steps, config.validate_every, config.optimizer.schedule.warmup_steps = 2, 2, 1
    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        assert training.train(config, epath.Path(tmp_path / "run")) == 0
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
    assert (traced["train_step"], traced["eval_step"]) == (1, 1)
