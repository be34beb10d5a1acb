"""The command line with a reader that takes its time and writes down what it read; started by tests that kill it.

The first argument is the file to write in, the others are the command's.
"""

import os
import sys
import time
from types import SimpleNamespace

import numpy as np

from cimp_core import jobs
from cimp_core.cli import main
from cimp_core.metadata import Acquisition

log = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_APPEND | os.O_CREAT)


class Slow:
    def __init__(self, *_, **__):
        self.timeout = None

    def start(self):
        pass

    def close(self):
        pass

    def read(self, path, override, detector, then):
        number = int(os.path.basename(path)[:-4])
        data = np.random.default_rng(number).integers(0, 2**16, (64, 64)).astype(np.uint16)
        time.sleep(0.01 + 0.02 * (number % 3))
        os.write(log, f"{number}\n".encode())
        image = SimpleNamespace(data=data, metadata=SimpleNamespace(General=SimpleNamespace(title="")))
        settings = Acquisition(1e-11 * (1 + number), 1e-6, 0.02, 5e-11, 30.0, -1.0, 0.06)
        shot = SimpleNamespace(
            image=image, acquisition=settings, readout="mean", intensity="velox16", notes=[], path=path
        )
        return then([shot])


jobs.KillableReader = Slow
main()
