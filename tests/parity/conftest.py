"""Both precisions for every comparison, and a check that each module reads the arrays it says it uses.

A module that compares with goldens holds `USES = {file: (pattern, ...)}`, and `PRECISIONS` where one is enough.
"""

import jax
import pytest
from formula import READ, arrays_used


@pytest.fixture(scope="module", params=["float32", "float64"])
def precision(request, optimised):
    """The precision a test computes in, compiled with all optimisations; matrix products are exact to it."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", request.param == "float64")
    with jax.default_matmul_precision("highest"):
        yield request.param
    jax.config.update("jax_enable_x64", before)


@pytest.fixture(scope="module", autouse=True)
def _every_array_of_the_module_is_read(request):
    """Compares `USES = {file: patterns}` of a module with what its tests have read, once all of them ran."""
    uses = getattr(request.module, "USES", {})
    READ.clear()
    yield
    items = [item for item in request.session.items if item.module is request.module]
    everything_ran = request.config.option.keyword == "" and not any(
        "::" in arg for arg in request.config.args
    )
    if not items or not everything_ran or request.session.testsfailed:
        return
    precisions = getattr(request.module, "PRECISIONS", ("float32", "float64"))
    wanted = arrays_used(uses, request.getfixturevalue("goldens"))
    unread = [(*pair, p) for pair in wanted for p in precisions if (*pair, p) not in READ]
    assert not unread, f"{request.module.__name__} says it uses {unread[:20]}, but no test read them"
