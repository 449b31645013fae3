"""Named random streams from one seed."""

import zlib

import jax
from jaxtyping import PRNGKeyArray


def stream(seed: int, name: str) -> PRNGKeyArray:
    """The key of one named stream, such as `init` or `step`; independent of which other streams exist."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
