"""Any Python training script as a trial of a Spotsweep sweep.

Owns the names that a script uses. Started by an agent, a script gets its parameters from it, and reports and checkpoints go
to it; started by hand, the same script takes its parameters from its flags and prints what it would have reported.

Nothing here imports a library besides Python's own; PyTorch and the others are imported where they are used.
"""

from . import checkpoint
from ._errors import CheckpointError, SpotsweepError, SpotsweepWarning
from ._link import speak_from_here
from ._params import Params, params
from ._say import done, fail, report, should_stop, stopped, trial
from .exact import ExactState
from .sampler import ExactSampler

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "ExactSampler",
    "ExactState",
    "Params",
    "SpotsweepError",
    "SpotsweepWarning",
    "checkpoint",
    "done",
    "fail",
    "params",
    "report",
    "should_stop",
    "speak_from_here",
    "stopped",
    "trial",
]
