"""Lightning: `Trainer(callbacks=[SpotsweepCallback()])`, `trainer.fit(model, ckpt_path=resume_path())`.

Owns the translation between a trainer's moments and what a program says. Works with `lightning` and `pytorch_lightning`,
whichever the script has imported.
"""

import importlib
import sys
from typing import Any, Optional

from . import checkpoint
from ._errors import SpotsweepError
from ._link import inside
from ._say import report, should_stop, stopped

# Name of the file in a checkpoint's folder.
FILE = "lightning.ckpt"


def _base() -> Any:
    names = ("lightning.pytorch", "pytorch_lightning")
    for name in sorted(names, key=lambda name: name not in sys.modules):
        try:
            return importlib.import_module(name).Callback
        except ImportError:
            continue
    raise ImportError("there is no Lightning\nhint: pip install lightning")


def resume_path() -> Optional[str]:
    """What to give to `Trainer.fit(ckpt_path=...)`: the checkpoint to resume from, or None."""
    found = checkpoint.load()
    if found is None:
        return None
    path = found.dir / FILE
    if not path.is_file():
        raise checkpoint.unreadable("there is no %s in it" % FILE)
    return str(path)


class SpotsweepCallback(_base()):  # type: ignore[misc]
    """Reports what the module logs, checkpoints when one is due, and ends the training when told to.

    Reports `trainer.callback_metrics` at the end of each validation, and of each epoch of a training without one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._reported = -1
        self._stopping = False

    def on_train_batch_end(self, trainer: Any, *_: Any, **__: Any) -> None:
        """Asks, and saves behind the step."""
        stopping = should_stop()
        if (stopping and not self._stopping) or checkpoint.due():
            self._save(trainer)
        if stopping:
            self._stopping = True
            trainer.should_stop = True

    def on_validation_end(self, trainer: Any, *_: Any) -> None:
        """Reports."""
        self._report(trainer)

    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        """Reports, where no validation did."""
        self._report(trainer)

    def on_train_end(self, trainer: Any, *_: Any) -> None:
        """Says how it ended. What comes behind `fit` may still report; an exit with status 0 is a finished trial."""
        if self._stopping:
            stopped(trainer.global_step)
        else:
            self._save(trainer, last=True)

    def _report(self, trainer: Any) -> None:
        step = int(trainer.global_step)
        # Cut short in the middle of an epoch, its means are not those of an uninterrupted one.
        if trainer.sanity_checking or self._stopping or step <= self._reported:
            return
        self._reported = step
        report(step, dict(trainer.callback_metrics), epoch=trainer.current_epoch + 1)

    def _save(self, trainer: Any, last: bool = False) -> None:
        if not inside():
            return
        # `save_checkpoint` waits for all ranks, and each hears of a stop in a moment of its own.
        if trainer.world_size > 1:
            raise SpotsweepError("this callback saves no checkpoints of a training with more than one process")
        if not checkpoint.saves():
            return
        with checkpoint.writing(int(trainer.global_step), last=last) as folder:
            trainer.save_checkpoint(str(folder / FILE))
