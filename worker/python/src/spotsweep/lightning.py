"""Lightning: `Trainer(callbacks=[SpotsweepCallback()])`, `trainer.fit(model, ckpt_path=resume_path())`.

Owns the translation between a trainer's moments and what a program says. Works with `lightning` and `pytorch_lightning`,
whichever the script has imported.
"""

import importlib
import sys
from typing import Any, Dict, Optional, Tuple

from . import checkpoint
from ._errors import SpotsweepError
from ._link import inside
from ._metrics import number_of
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

    Reports `trainer.callback_metrics` at the end of each validation and each epoch; where they are at the same step, that
    is one report.

    Checkpoints are saved at the end of an epoch; told to stop in the middle of one, a training goes on from the end of the
    last. With `mid_epoch=True` they are saved behind any step: then no work is lost, but Lightning begins the data anew
    where it resumes, unless the loader keeps its place itself, and the epoch's means are those of its rest.
    """

    def __init__(self, *, mid_epoch: bool = False) -> None:
        super().__init__()
        self._mid_epoch = mid_epoch
        self._reported = -1
        self._held: Optional[Tuple[int, Dict[str, Any], int]] = None
        self._stopping = False
        # Lightning handles SIGTERM itself, by leaving without a checkpoint, unless somebody does already.
        should_stop()

    def on_train_batch_end(self, trainer: Any, *_: Any, **__: Any) -> None:
        """Asks."""
        stopping = should_stop()
        if self._mid_epoch and ((stopping and not self._stopping) or checkpoint.due()):
            self._save(trainer)
        if stopping:
            self._stopping = True
            trainer.should_stop = True

    def on_validation_end(self, trainer: Any, *_: Any) -> None:
        """Holds the metrics back: at the end of an epoch those of the training are still to come."""
        self._hold(trainer)

    def on_train_batch_start(self, *_: Any, **__: Any) -> None:
        """A validation in the middle of an epoch is complete."""
        self._report()

    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        """Reports."""
        self._hold(trainer)
        self._report()
        if not self._stopping and (checkpoint.due() or should_stop()):
            self._save(trainer)

    def on_train_end(self, trainer: Any, *_: Any) -> None:
        """Says how it ended. What comes behind `fit` may still report; an exit with status 0 is a finished trial."""
        if self._stopping:
            stopped(trainer.global_step)
        else:
            self._save(trainer, last=True)

    def _hold(self, trainer: Any) -> None:
        # Cut short in the middle of an epoch, its means are not those of an uninterrupted one.
        if not trainer.sanity_checking and not self._stopping:
            # As numbers: Lightning goes on computing with these tensors.
            metrics = {name: number_of(value) for name, value in trainer.callback_metrics.items()}
            self._held = (int(trainer.global_step), metrics, int(trainer.current_epoch) + 1)

    def _report(self) -> None:
        held, self._held = self._held, None
        if held is not None and held[0] > self._reported:
            self._reported = held[0]
            report(held[0], held[1], epoch=held[2])

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
