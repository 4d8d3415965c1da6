"""A small `wandb` for scripts that use `init`, `config`, `log`, `summary` and `finish`, under `compat: wandb`.

Owns those five and the run that has them; everything else is an error that names it. Parameters come from the sweep, and
what is logged goes to the coordinator; nothing goes to Weights & Biases, and no account is needed.

What they mean follows W&B's documentation: https://docs.wandb.ai/models/track/log and
https://docs.wandb.ai/support/models/articles/how-do-i-set-default-hyperparameter-values-in-a-sweep.
"""

import atexit
import os
import sys
from typing import Any, NoReturn, Optional

try:
    import spotsweep
except ImportError:
    # This folder alone was put on the path.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))))
    import spotsweep

from ._config import Config
from ._run import Run, Summary

# What a script may ask this module for its version.
__version__ = "0.0.0+spotsweep." + spotsweep.__version__
__all__ = ["Config", "Error", "Run", "Summary", "UsageError", "config", "finish", "init", "log", "run", "summary"]

SUPPORTED = "init, config, log, summary, finish and run"


class Error(Exception):
    """W&B's name for its errors."""


class UsageError(Error):
    """W&B's name for a call in the wrong place."""


run: Optional[Run] = None
config: Config = Config({})
summary: Summary = Summary()

# Keyword arguments of `init` that name or describe a run where W&B keeps it. They change nothing here.
_DESCRIBING = frozenset(
    (
        "allow_val_change anonymous config_exclude_keys config_include_keys dir entity force group id job_type mode name "
        "notes project reinit resume save_code settings tags"
    ).split()
)


def init(*, config: Any = None, **describing: Any) -> Run:
    """Begins the run of this trial: `config` gives defaults, over which the sweep's parameters go.

    What only names or describes the run (`project`, `name`, `tags`, …) is taken and left aside; other arguments are an
    error. A second call gives the same run.
    """
    global run
    for name in sorted(describing):
        if name not in _DESCRIBING:
            refuse("init(%s=...)" % name)
    if run is not None:
        if run.finished:
            raise UsageError(
                "this trial's run is finished, and a trial has one\n"
                "hint: begin it once; a second training is a second trial of the sweep"
            )
        if config is not None:
            run.config.setdefaults(config)
        return run
    run = Run(config)
    run.name = describing.get("name") or run.name
    run.project = describing.get("project") or run.project
    module = globals()
    module["config"], module["summary"] = run.config, run.summary
    atexit.register(run.close_at_exit)
    return run


def log(data: Any, step: Optional[int] = None, commit: Optional[bool] = None, sync: Optional[bool] = None) -> None:
    """`run.log` of the present run."""
    _present("log").log(data, step=step, commit=commit, sync=sync)


def finish(exit_code: Optional[int] = None, quiet: Optional[bool] = None) -> None:
    """`run.finish` of the present run, if there is one."""
    if run is not None:
        run.finish(exit_code=exit_code, quiet=quiet)


def _present(what: str) -> Run:
    if run is None:
        raise UsageError("wandb.%s() before wandb.init()" % what)
    return run


def refuse(what: str) -> NoReturn:
    """The error for what there is not."""
    raise UsageError(
        "wandb.%s is not supported by Spotsweep's `compat: wandb`, which has %s\n"
        "hint: take it out, guard it, or train without `compat` and with W&B's own library" % (what, SUPPORTED)
    )


def __getattr__(name: str) -> Any:
    # Python itself asks for such names, for instance for __path__ and __wrapped__.
    if name.startswith("__"):
        raise AttributeError(name)
    refuse(name)
