"""A task of `cimp_core.jobs` that writes down each file it finishes; imported by workers that a test kills."""

import os
import time

import numpy as np


def finish(reader, path, options):
    time.sleep(0.1)
    with open(options["log"], "a") as log:
        log.write(os.path.basename(path) + "\n")
    return {"name": os.path.basename(path)}, [np.zeros(2)]
