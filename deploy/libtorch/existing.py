"""A libtorch that the user has already: whether it will do, and where it is.

Owns the reading of `LIBTORCH` and `SPOTSWEEP_PYTHON_TORCH` and the check of a folder. It must not write or
fetch anything, nor import torch: that takes seconds and gigabytes.
"""

import os
import re
import subprocess
from typing import Mapping, Optional

from errors import FetchError
from pins import LIBTORCH_VERSION

_VERSION_HEADER = "include/torch/headeronly/version.h"
# What the build needs beside the version.
_NEEDED = (
    "include/torch/csrc/api/include/torch/torch.h",
    "lib/libc10.so",
    "lib/libtorch.so",
    "lib/libtorch_cpu.so",
)
_FIND_TORCH = """
import importlib.util, os
found = importlib.util.find_spec("torch")
print(os.path.dirname(found.origin) if found and found.origin else "")
"""
_FIND_TIMEOUT_S = 60


def chosen(environment: Mapping[str, str]) -> Optional[str]:
    """The folder that the user points at; None where there is no wish. `LIBTORCH` wins."""
    folder = environment.get("LIBTORCH")
    if folder:
        return check(os.path.abspath(folder), "LIBTORCH")
    python = environment.get("SPOTSWEEP_PYTHON_TORCH")
    if python:
        folder = python_torch(python)
        if folder is None:
            raise FetchError(
                "%s has no torch" % python,
                "`%s -m pip install torch==%s`, or unset SPOTSWEEP_PYTHON_TORCH to have the CPU part fetched" % (python, LIBTORCH_VERSION),
            )
        return check(folder, "SPOTSWEEP_PYTHON_TORCH")
    return None


def python_torch(python: str) -> Optional[str]:
    """The folder of the torch that `python` would import, without importing it."""
    try:
        asked = subprocess.run(
            [python, "-c", _FIND_TORCH], capture_output=True, text=True, check=False, timeout=_FIND_TIMEOUT_S, cwd="/"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FetchError("cannot run %s: %s" % (python, error), "SPOTSWEEP_PYTHON_TORCH is the Python to ask, such as python3") from error
    return asked.stdout.strip() or None


def version(folder: str) -> Optional[str]:
    """The version that the headers in a libtorch folder state."""
    try:
        with open(os.path.join(folder, _VERSION_HEADER), encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        # Before 2.9 the numbers stood elsewhere; such a folder is too old, and says so in this file.
        try:
            with open(os.path.join(folder, "build-version"), encoding="utf-8", errors="replace") as file:
                return file.read().strip() or None
        except OSError:
            return None
    numbers = [re.search(r"#define TORCH_VERSION_%s (\d+)" % part, text) for part in ("MAJOR", "MINOR", "PATCH")]
    return ".".join(n.group(1) for n in numbers if n) if all(numbers) else None


def check(folder: str, wish: str) -> str:
    """`folder`, if it holds the libtorch that this project is built for. `wish` is where it was named."""
    hint = "unset %s to have libtorch %s fetched, or point it at one" % (wish, LIBTORCH_VERSION)
    if not os.path.isdir(folder):
        raise FetchError("%s names %s, which is no folder" % (wish, folder), hint)
    found = version(folder)
    if found is None:
        raise FetchError("%s names %s, which does not look like libtorch: no %s" % (wish, folder, _VERSION_HEADER), hint)
    if found.split("+")[0] != LIBTORCH_VERSION:
        raise FetchError("%s names libtorch %s, and %s is needed" % (wish, found, LIBTORCH_VERSION), hint)
    for path in _NEEDED:
        if not os.path.exists(os.path.join(folder, path)):
            raise FetchError("the libtorch that %s names lacks %s" % (wish, path), hint)
    return folder
