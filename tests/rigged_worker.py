"""A reader process that misbehaves as the file's name says; started by test_microscope_worker.py."""

import os
import signal
import sys
import time

import numpy as np

import cimp_core.microscope as microscope
from cimp_core.microscope import worker

honest = microscope.read


def read(path, **options):
    name = os.path.basename(path)
    if "hang" in name:
        time.sleep(60)
    if "crash" in name:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "bug" in name:
        raise ZeroDivisionError("of our own making")
    if "chatty" in name:
        print("library output on standard output", flush=True)
        os.write(1, b"and from C\n")
    if "greedy" in name:
        np.empty(6 * 2**30, np.uint8)  # never touched: without a limit it succeeds on any machine
    return honest(path, **options)


microscope.read = read
worker._serve(int(sys.argv[1]))
