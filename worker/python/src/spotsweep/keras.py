"""Keras: `model.fit(..., callbacks=[SpotsweepCallback()], initial_epoch=resume(model))`.

Owns the translation between a model's moments and what a program says. Steps are epochs, for Keras resumes at epochs alone.
"""

import importlib
from typing import Any, Dict, Optional

from . import checkpoint
from ._say import report, should_stop, stopped

# Name of the file in a checkpoint's folder.
FILE = "model.weights.h5"


def _base() -> Any:
    try:
        return importlib.import_module("keras").callbacks.Callback
    except ImportError as error:
        raise ImportError("there is no Keras: %s\nhint: pip install keras" % error)


def resume(model: Any) -> int:
    """Loads the checkpoint to resume from, if there is one, into a compiled model; what to give as `initial_epoch`.

    The optimizer's state comes with the weights. Its variables must be there to be filled, so they are built here.
    """
    found = checkpoint.load()
    if found is None:
        return 0
    path = found.dir / FILE
    try:
        if model.optimizer is not None and not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        model.load_weights(str(path))
    except Exception as error:
        raise checkpoint.unreadable("%s: %s" % (path, error)) from error
    return found.step


class SpotsweepCallback(_base()):  # type: ignore[misc]
    """Reports at the end of each epoch, checkpoints when one is due, and ends the training when told to.

    Told in the middle of an epoch, it ends at once, and the trial goes on from the last checkpoint.
    """

    def __init__(self) -> None:
        super().__init__()
        self._stopping = False
        # So that SIGTERM before the first step is an answer, too.
        should_stop()
        self._epochs = 0

    def on_epoch_begin(self, epoch: int, logs: Optional[Dict[str, Any]] = None) -> None:
        """An epoch that is cut short has no metrics."""
        self._epochs = epoch

    def on_train_batch_end(self, batch: int, logs: Optional[Dict[str, Any]] = None) -> None:
        """Asks."""
        if should_stop():
            self._stopping = True
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Optional[Dict[str, Any]] = None) -> None:
        """Reports, and saves."""
        if self._stopping:
            return
        self._epochs = epoch + 1
        report(self._epochs, logs, epoch=self._epochs)
        if checkpoint.due():
            self._save()

    def on_train_end(self, logs: Optional[Dict[str, Any]] = None) -> None:
        """Says how it ended. What comes behind `fit` may still report; an exit with status 0 is a finished trial."""
        if self._stopping:
            stopped(self._epochs)
        else:
            self._save(last=True)

    def _save(self, last: bool = False) -> None:
        if checkpoint.saves():
            with checkpoint.writing(self._epochs, last=last) as folder:
                self.model.save_weights(str(folder / FILE))
