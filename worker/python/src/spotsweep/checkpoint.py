"""Checkpoints: `due`, `save`, `load`. Owns how a checkpoint comes to lie whole where the agent takes it from.

A checkpoint is a folder. `save` takes one that the program has written, or a state: a dictionary of numbers, texts, lists
and the like, which it writes as JSON to the exact bit. For PyTorch there is `spotsweep.ExactState`.

Without an agent nothing is saved, nothing is due, and there is nothing to load.
"""

import contextlib
import itertools
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional, Union

from . import _exact_json, _metrics
from ._errors import CheckpointError, warn_once
from ._link import CHECKPOINTS, JOB, RESUME, inside, link, read_json
from ._say import tell_failure

# Name of the file with a state, in a checkpoint's folder.
STATE_FILE = "state.json"
# Saved checkpoints that the agent has not fetched yet, beyond which `save` waits for it: so a program that saves faster than
# a checkpoint can be stored does not fill the disk.
WAITING = 4
# Longest such wait, in seconds.
WAIT_S = 60.0
# Time between two looks, in seconds.
LOOK_S = 0.02

_numbers = itertools.count()


class Checkpoint:
    """The checkpoint to resume from: `step`, `dir`, and `state` if it was saved as one."""

    def __init__(self, step: int, folder: Path) -> None:
        self.step = step
        self.dir = folder

    @property
    def state(self) -> Any:
        """What was given to `save`.

        # Errors
        CheckpointError if it cannot be read, of which the agent is told: the trial goes on from the checkpoint before.
        """
        path = self.dir / STATE_FILE
        try:
            return _exact_json.decode(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise unreadable("%s: %s" % (path, error)) from error


def unreadable(text: str) -> CheckpointError:
    """Tells the agent that the checkpoint to resume from cannot be read, and makes the error to raise."""
    text = "the checkpoint to resume from cannot be read: %s" % text
    tell_failure(text, "checkpoint")
    return CheckpointError(text)


def due() -> bool:
    """Whether the agent waits for a checkpoint, by the sweep's `checkpoint` section or because the program shall stop."""
    return link.checkpoint_is_wanted()


def load() -> Optional[Checkpoint]:
    """The checkpoint to resume from; None at the start of a trial, and without an agent."""
    folder = os.environ.get(RESUME)
    if not folder or not inside():
        return None
    job = read_json(JOB)
    resume = job.get("resume") if isinstance(job, Mapping) else None
    step = resume.get("step") if isinstance(resume, Mapping) else None
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise unreadable("%s says no step for it" % JOB)
    return Checkpoint(step, Path(folder))


def save(what: Union[str, "os.PathLike[str]", Any], step: Any, *, last: bool = False) -> None:
    """Saves a checkpoint behind `step`: a folder, or a state.

    A folder is copied, unless it lies directly in the folder that SPOTSWEEP_CHECKPOINTS names: then it is the agent's from
    now on. A state is anything made of None, booleans,
    numbers, text, bytes, lists, tuples and dictionaries. `last` says that these are the weights with which the trial ends.
    Returns once the checkpoint is the agent's to store, which it does beside the training.

    # Errors
    CheckpointError if it cannot be written; TypeError if a state holds something else.
    """
    whole = _metrics.read_step(step)
    if not inside() or not link.speaks():
        return
    if isinstance(what, (str, os.PathLike)):
        source = Path(what)
        if not source.is_dir():
            raise CheckpointError("there is no folder %s to save" % source)
        root = _root()
        if source.resolve().parent == root.resolve() and not source.name.startswith("."):
            announce(source, whole, last=last)
            return
        with writing(whole, last=last) as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True)
    else:
        text = json.dumps(_exact_json.encode(what), allow_nan=True, separators=(",", ":"))
        with writing(whole, last=last) as folder:
            (folder / STATE_FILE).write_text(text, encoding="utf-8")


@contextlib.contextmanager
def writing(step: int, *, last: bool = False) -> Iterator[Path]:
    """A folder to write a checkpoint into, which is the agent's once the block has ended without an error.

    Without an agent, or in a process that does not speak, use `saves()` to see that there is nothing to write.
    """
    root = _root()
    _wait_for_agent(root)
    number = next(_numbers)
    name = "step-%d-%d-%d" % (step, os.getpid(), number)
    folder = root / (".writing-" + name)
    try:
        folder.mkdir(parents=True)
        yield folder
        finished = root / name
        os.rename(folder, finished)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise CheckpointError("the checkpoint behind step %d cannot be written: %s" % (step, error)) from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    announce(finished, step, last=last)


def step_of(step: Any) -> int:
    """A step as `save` takes it."""
    return _metrics.read_step(step)


def saves() -> bool:
    """Whether this process has somebody to save checkpoints for."""
    return inside() and link.speaks() and bool(os.environ.get(CHECKPOINTS))


def announce(folder: Path, step: int, *, last: bool = False) -> None:
    """Tells the agent of a whole checkpoint in its folder. It must not change any more."""
    message = {"type": "checkpoint", "step": step, "dir": os.path.abspath(folder)}
    link.send({**message, "last": True} if last else message)
    link.checkpoint_was_made()


def _root() -> Path:
    root = os.environ.get(CHECKPOINTS)
    if not root:
        raise CheckpointError("%s is not set, so there is no place for checkpoints" % CHECKPOINTS)
    return Path(root)


def _wait_for_agent(root: Path) -> None:
    """Waits until few enough checkpoints of this program lie there."""
    until = time.monotonic() + WAIT_S
    while True:
        try:
            waiting = sum(1 for name in os.listdir(root) if not name.startswith("."))
        except FileNotFoundError:
            return
        if waiting < WAITING or link.stop_is_told():
            return
        if time.monotonic() > until:
            warn_once("waiting", "", "the agent has not stored a checkpoint for %d s" % WAIT_S)
            return
        time.sleep(LOOK_S)
