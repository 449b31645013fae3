import json

from ecgjax.plans import records


def compiled(**changes):
    """A compilation of one all-reduce."""
    collective = records.Collective(
        "all-reduce", 2, 1024, 16, "ici", True, ("bf16",), (4, 4), 0.0, "transpose(jvp())/dot_general"
    )
    program = records.Program((collective,), 4096, 1e9, 2e6, 0, ("kernel",))
    memory = records.Memory(100, 50, 40, 30, 5, 120, 1000)
    fields = {
        "topology": "v5e:4x4",
        "devices": 16,
        "batch_size": 512,
        "model_flops": 10**12,
        "effort": "full",
        "seconds": 1.5,
        "state_bytes": {"parameters": 60, "optimiser": 40},
        "memory": memory,
        "program": program,
        "cost_analysis": {"flops": 1.0},
        "versions": {"jax": "0"},
    }
    return records.Compiled(**{**fields, **changes})


def test_a_compilation_survives_json():
    for record in (compiled(), compiled(memory=None, program=None, error="18.14 of 15.75 GiB")):
        assert records.compiled_from_json(json.loads(json.dumps(records.to_json(record)))) == record


def test_the_upper_bound_counts_donated_outputs_once():
    assert compiled().memory.upper_bound == 100 + 50 - 40 + 30
