"""What a process makes of an error, and says while all wait; test_processes ends real ones."""

import sys
import threading
import time

import jax
import pytest

from ecgjax.core import peers
from ecgjax.core.peers import Peers


class Store:
    """The coordinator's key-value store for one process: a barrier opens where `open` is set."""

    def __init__(self):
        self.values, self.open = {}, threading.Event()

    def key_value_set(self, key, value, allow_overwrite=False):
        self.values[key] = value

    def key_value_dir_get(self, place):
        return [(key, value) for key, value in list(self.values.items()) if key.startswith(f"{place}/")]

    def wait_at_barrier(self, place, _):
        assert self.open.wait(20)


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setattr(peers, "on_abort", lambda _: None)  # The handler would outlive the test.
    monkeypatch.setattr(peers, "_EVERY_S", 0.01)
    store = Store()
    store.values["ecgjax/hosts/0/1"] = store.values["ecgjax/hosts/0/2"] = "other"
    store.open.set()
    return store


def make(store, process=0):
    return Peers(store, "127.0.0.1:1", process=process, processes=3, host="here", timeout_s=30.0)


def test_after_a_while_it_is_said_for_whom_all_others_wait(store, monkeypatch, capsys):
    monkeypatch.setattr(peers, "_NOTICE_S", 0.05)
    here = make(store)
    store.open.clear()
    store.values["ecgjax/restored/0/1"] = ""
    waiting = threading.Thread(target=lambda: here.gather("restored", ""))
    waiting.start()
    deadline = time.monotonic() + 10
    said = ""
    while "waiting" not in said:
        assert time.monotonic() < deadline
        said += capsys.readouterr().err
        time.sleep(0.01)
    assert said == "process 0 of 3 (here): waiting for process 2 of 3 (other) at 'restored'.\n"
    store.values["ecgjax/restored/0/2"] = ""
    store.open.set()
    waiting.join()
    here._over.set()
    here._thread.join()
    assert capsys.readouterr().err == ""


JaxError = jax.errors.JaxRuntimeError


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (JaxError("INTERNAL: Gloo AllReduce failed: Connection closed by peer"), True),
        (JaxError("UNAVAILABLE: failed to connect to all addresses"), True),
        (JaxError("INTERNAL: Core halted unexpectedly"), False),
        (JaxError("RESOURCE_EXHAUSTED: Out of memory while connection pools were made"), None),
        (ValueError("UNAVAILABLE: HTTP response code: 503"), None),
    ],
    ids=["collective", "coordinator", "a chip", "memory", "storage"],
)
def test_an_error_of_jax_may_be_another_process(error, found):
    assert peers._lost_contact(error) is found
    late = TimeoutError("Timed out while waiting")
    late.__cause__ = error
    assert peers._lost_contact(late) is found


@pytest.mark.parametrize("silent", [True, False])
def test_a_chip_that_stops_is_another_host_where_that_is_silent(store, monkeypatch, silent):
    """Only then does the same command help: an error of this process would come again."""
    monkeypatch.setattr(peers, "_LINGER_S", 0.05)
    monkeypatch.setattr(peers, "_end", sys.exit)
    here = make(store)
    store.values |= {f"ecgjax/beats/{number}": "1" for number in (1, 2)}
    if not silent:
        monkeypatch.setattr(Store, "key_value_dir_get", counting(Store.key_value_dir_get))
    with pytest.raises(SystemExit) as ended:
        here.leave("Traceback: Core halted", JaxError("INTERNAL: Core halted unexpectedly"))
    here._over.set()
    here._thread.join()
    said = store.values["ecgjax/last_word/0"]
    assert ended.value.code == (76 if silent else 1)
    assert ("process 1 of 3 (other), process 2 of 3 (other) is gone" in said) is silent
    assert ("Traceback: Core halted" in said) is not silent


def counting(get):
    """Others' beats go on."""
    return lambda self, place: [
        (key, str(time.monotonic()) if place.endswith("beats") else value) for key, value in get(self, place)
    ]
