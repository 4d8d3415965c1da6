#!/usr/bin/env python3
"""The programs for which sweeps are exported, in a virtual environment of the user's cache; runs a command inside.

    readers.py COMMAND...

Owns the pins and the folder: it is whole or not there, and fetched once. Nothing is installed anywhere else.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import venv

# The newest of each when this was written; what they need besides follows from them.
PINS = ("mlflow==3.17.2", "numpy==2.4.6", "pandas==3.1.1", "pyarrow==25.0.1", "tensorboard==2.21.0")
# What the pins need.
LEAST_PYTHON = (3, 11)


def cache_root() -> str:
    """As deploy/libtorch/fetch.py: the XDG rules."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "spotsweep")


def python() -> str:
    """The interpreter of the environment, which is made if it is not there."""
    named = os.environ.get("SPOTSWEEP_READERS_PYTHON", "")
    if named:
        return named
    what = " ".join(PINS) + " %d.%d" % sys.version_info[:2]
    place = os.path.join(cache_root(), "readers-" + hashlib.sha256(what.encode()).hexdigest()[:12])
    inside = os.path.join(place, "bin", "python3")
    os.makedirs(cache_root(), exist_ok=True)
    with open(place + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Written last: an environment cannot be moved to its place when it is whole.
        whole = os.path.join(place, "whole")
        if not os.path.exists(whole):
            print("fetching %s into %s, once" % (", ".join(PINS), place), file=sys.stderr)
            shutil.rmtree(place, ignore_errors=True)
            venv.create(place, with_pip=True)
            subprocess.run([inside, "-m", "pip", "install", "--quiet", *PINS], check=True)
            with open(whole, "w") as file:
                file.write(what + "\n")
    return inside


def main() -> int:
    if sys.version_info < LEAST_PYTHON:
        print("skipped: what reads exports needs Python %d.%d" % LEAST_PYTHON)
        return 0
    interpreter = python()
    os.execv(interpreter, [interpreter, *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
