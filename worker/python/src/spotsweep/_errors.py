"""What can go wrong, and how it is said. Must not decide what is wrong."""

import threading
import warnings
from typing import Set, Tuple

# Different warnings that are remembered, so that each is given once; after as many, nothing more is said.
WARNINGS_KEPT = 256

_given: Set[Tuple[str, str]] = set()
_lock = threading.Lock()


class SpotsweepError(Exception):
    """Something that this package cannot do as asked."""


class CheckpointError(SpotsweepError):
    """A checkpoint cannot be written, or the one to resume from cannot be read."""


class SpotsweepWarning(UserWarning):
    """Something was left out, and training goes on without it."""


def warn_once(kind: str, subject: str, text: str, *, stacklevel: int = 4) -> None:
    """Warns with `text`, once for each `kind` and `subject`."""
    with _lock:
        if (kind, subject) in _given or len(_given) >= WARNINGS_KEPT:
            return
        _given.add((kind, subject))
    warnings.warn(text, SpotsweepWarning, stacklevel=stacklevel)
