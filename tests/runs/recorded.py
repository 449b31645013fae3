"""`python recorded.py FILE PAUSE_S train ...`: ecgjax as it is, which also writes down what it reads.

A pause before each batch makes steps long enough for a signal to arrive among them.
"""

import json
import sys
import time

import ecgjax.__main__ as program
from ecgjax.train import loop


class Recorded:
    """Batches, each with its number and its examples written to a file."""

    def __init__(self, batches, path, pause_s):
        self._batches, self._file, self._pause_s = batches, open(path, "a"), pause_s  # noqa: SIM115

    def __next__(self):
        time.sleep(self._pause_s)
        number, batch = self._batches.next_batch, next(self._batches)
        self._file.write(json.dumps({"batch": number, "index": batch["index"].tolist()}) + "\n")
        self._file.flush()
        return batch

    def __getattr__(self, name):
        return getattr(self._batches, name)


def main():
    path, pause_s = sys.argv[1], float(sys.argv[2])
    sys.argv[1:3] = []
    fit = loop.fit
    loop.fit = lambda state, *, batches, **given: fit(
        state, batches=Recorded(batches, path, pause_s), **given
    )
    program.main()


if __name__ == "__main__":
    main()
