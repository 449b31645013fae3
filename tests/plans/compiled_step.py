"""The contrastive step of the paper on v5e:4x4 as it was compiled: 32 pairs a chip, global batch norm."""

from ecgjax.plans import records

MIB = 2**20


def reduction(times, size, *, dtype="bf16", **changes):
    fields = {
        "kind": "all-reduce",
        "times": times,
        "bytes": size,
        "group": 16,
        "network": "ici",
        "blocking": True,
        "dtypes": (dtype,),
        "span": (4, 4),
        "hops": 0.0,
        "name": "",
    }
    return records.Collective(**{**fields, **changes})


EMBEDDINGS = 512 * 128 * 4
COLLECTIVES = (
    reduction(2, 31_900_000),
    reduction(98, 6_000, dtype="f32"),
    reduction(1, EMBEDDINGS, dtype="f32"),
    reduction(1, 4, dtype="f32"),
    reduction(2, EMBEDDINGS, dtype="f32", kind="all-gather", blocking=False, cover_cycles=1e6),
)


def program(**changes):
    fields = {
        "collectives": COLLECTIVES,
        "hbm_bytes": 7_510_000_000,
        "flops": 1.0905e12,
        "cycles": 32.1e6,
        "unknown_loops": 0,
        "kernels": (),
    }
    return records.Program(**{**fields, **changes})


def compiled(**changes):
    fields = {
        "topology": "v5e:4x4",
        "devices": 16,
        "batch_size": 512,
        "model_flops": 16 * 10**12,
        "effort": "full",
        "seconds": 130.0,
        "state_bytes": {
            "parameters": 120 * MIB,
            "optimiser": 240 * MIB,
            "statistics": MIB // 5,
            "batch": 32 * 210 * 210 * 3,
        },
        "memory": records.Memory(
            arguments=361 * MIB,
            outputs=349 * MIB,
            aliased=349 * MIB,
            temporaries=1739 * MIB,
            code=118 * MIB,
            peak=1981 * MIB,
            available=16128 * MIB,
        ),
        "program": program(),
        "cost_analysis": {"flops": 1.0905e12, "bytes accessed": 28.3e9},
        "versions": {"jax": "0.10.2", "libtpu": "0.0.42.1"},
        "batch_norms": 53,
    }
    return records.Compiled(**{**fields, **changes})
