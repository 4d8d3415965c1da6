"""Finds a Python that has PyTorch: this one, or the one that SPOTSWEEP_PYTHON_TORCH names, as for the rest of the project."""

import functools
import importlib.util
import os
import subprocess
import sys
from typing import Optional


@functools.lru_cache(maxsize=None)
def find() -> Optional[str]:
    """Its path, or None."""
    if importlib.util.find_spec("torch") is not None:
        return sys.executable
    named = os.environ.get("SPOTSWEEP_PYTHON_TORCH")
    if not named:
        return None
    found = subprocess.run([named, "-c", "import torch"], stdin=subprocess.DEVNULL, capture_output=True)
    if found.returncode:
        raise AssertionError("SPOTSWEEP_PYTHON_TORCH=%s cannot import torch" % named)
    return named
