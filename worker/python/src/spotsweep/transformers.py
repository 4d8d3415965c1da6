"""Hugging Face's Trainer: `Trainer(callbacks=[SpotsweepCallback()])`, `trainer.train(resume_from_checkpoint=resume_path())`.

Owns the translation between a trainer's moments and what a program says.
"""

import importlib
import os
from typing import Any, Dict, Optional

from . import checkpoint
from ._metrics import number_of
from ._say import report, should_stop, stopped


def _base() -> Any:
    try:
        return importlib.import_module("transformers").TrainerCallback
    except ImportError as error:
        raise ImportError("there is no transformers, or it lacks a Trainer: %s\nhint: pip install transformers" % error)


def resume_path() -> Optional[str]:
    """What to give to `Trainer.train(resume_from_checkpoint=...)`: the folder to resume from, or None."""
    found = checkpoint.load()
    return None if found is None else str(found.dir)


class SpotsweepCallback(_base()):  # type: ignore[misc]
    """Reports what the trainer logs, has it save when a checkpoint is due, and ends the training when told to.

    Everything that is logged until the next step is one report, training and evaluation together. The trainer writes its
    checkpoints to `output_dir`, from where they are taken; `save_total_limit=1` keeps that folder small.
    """

    def __init__(self) -> None:
        self._logged: Dict[str, Any] = {}
        self._logged_at = 0
        self._epoch: Optional[float] = None
        self._stopping = False
        # So that SIGTERM before the first step is an answer, too.
        should_stop()

    def on_log(self, args: Any, state: Any, control: Any, logs: Optional[Dict[str, Any]] = None, **_: Any) -> None:
        """Keeps what is logged, for one report a step."""
        if state.global_step != self._logged_at:
            self._report()
            self._logged_at = state.global_step
        self._epoch = state.epoch
        self._logged.update(
            (name, value) for name, value in (logs or {}).items() if name != "epoch" and number_of(value) is not None
        )

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """What was logged of the last step is complete."""
        self._report()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Asks."""
        stopping = should_stop()
        if checkpoint.saves() and ((stopping and not self._stopping) or checkpoint.due()):
            control.should_save = True
        if stopping:
            self._stopping = True
            control.should_training_stop = True
        return control

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Takes what the trainer has saved."""
        if checkpoint.saves():
            checkpoint.save(os.path.join(args.output_dir, "checkpoint-%d" % state.global_step), state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Says how it ended. What comes behind `train` may still report; an exit with status 0 is a finished trial."""
        self._report()
        if self._stopping:
            stopped(state.global_step)

    def _report(self) -> None:
        if self._logged:
            report(self._logged_at, self._logged, epoch=self._epoch)
            self._logged = {}
