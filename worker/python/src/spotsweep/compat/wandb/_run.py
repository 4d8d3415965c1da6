"""`wandb.run`: what is logged becomes reports. Owns W&B's rules of steps; must not know how a report gets to the agent."""

import sys
from typing import Any, Dict, List, Mapping, Optional

import spotsweep
from spotsweep import _metrics

from ._config import Config

# Deepest nesting of what is logged. W&B joins the names of nested metrics with a dot.
DEPTH = 8


class Summary(Dict[str, Any]):
    """The run's single values: the last that was logged of each name, or what the script sets. `done` takes them."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError("wandb.summary has no '%s'" % name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


class Run:
    """One run, which is this trial's."""

    def __init__(self, defaults: Any) -> None:
        chosen = spotsweep.params() if spotsweep.trial() is not None else {}
        self.config = Config({name: _plain(value) for name, value in chosen.items()})
        if defaults is not None:
            self.config.setdefaults(defaults)
        self.summary = Summary()
        self.id = (spotsweep.trial() or "local").replace("/", "-")
        self.name: str = self.id
        self.project: str = ""
        self.finished = False
        self.step = 0
        self._row: Dict[str, Any] = {}
        self._failed = False
        self._closed = False

    def log(
        self,
        data: Mapping[str, Any],
        step: Optional[int] = None,
        commit: Optional[bool] = None,
        sync: Optional[bool] = None,
    ) -> None:
        """Adds to the row of a step; a row is reported once it is complete.

        Without `step`, it is that of the present step, which ends with the call, unless `commit=False`. With a later `step`,
        the present row is complete and another begins, which ends with the next step, or at once with `commit=True`. What
        is logged for an earlier step is dropped with a warning.
        """
        if self.finished:
            raise spotsweep.SpotsweepError("wandb.log() after wandb.finish()")
        if not isinstance(data, Mapping):
            raise ValueError("wandb.log() takes a dictionary, and got a %s" % type(data).__name__)
        if step is not None:
            step = _metrics.read_step(step)
            if step < self.step:
                spotsweep._errors.warn_once(
                    "wandb", "", "what is logged for step %d is dropped: the present step is %d" % (step, self.step)
                )
                return
            if step > self.step:
                self._complete()
                self.step = step
        flat = _flat(data)
        self._row.update(flat)
        self.summary.update(flat)
        if commit if commit is not None else step is None:
            self._complete()
            self.step += 1

    def finish(self, exit_code: Optional[int] = None, quiet: Optional[bool] = None) -> None:
        """Ends the run. The trial is finished once the script has ended, for it may do more behind this."""
        if not self.finished:
            self._complete()
            self.finished = True
            self._failed = bool(exit_code)

    def close_at_exit(self) -> None:
        """At the interpreter's exit: the summary becomes the trial's final metrics, if the script did not fail.

        One that leaves by an exception or a status other than 0 has failed, of which its exit says enough.
        """
        if self._closed:
            return
        self._closed = True
        self.finish(exit_code=1 if self._failed else 0)
        if not self._failed and not _is_failing() and not spotsweep._say.has_ended():
            spotsweep.done(None, {name: value for name, value in _flat(self.summary).items() if _is_number(value)})

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        self.finish(exit_code=0 if kind is None else 1)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        from . import refuse

        refuse("run.%s" % name)

    def _complete(self) -> None:
        row, self._row = self._row, {}
        if row:
            spotsweep.report(self.step, row)


def _flat(data: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Dict[str, Any]:
    flat: Dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, Mapping) and depth < DEPTH:
            flat.update(_flat(value, "%s%s." % (prefix, name), depth + 1))
        else:
            flat["%s%s" % (prefix, name)] = value
    return flat


def _plain(value: Any) -> Any:
    return {name: _plain(inner) for name, inner in value.items()} if isinstance(value, Mapping) else value


def _is_number(value: Any) -> bool:
    return _metrics.number_of(value) is not None


_statuses: List[Any] = []


def _is_failing() -> bool:
    """Whether the interpreter ends by an exception, or by `sys.exit` with a status other than 0."""
    return hasattr(sys, "last_type") or any(status not in (None, 0, False) for status in _statuses[-1:])


def _exit(status: Any = None, /) -> None:
    _statuses.append(status)
    _real_exit(status)


_real_exit = sys.exit
sys.exit = _exit  # type: ignore[assignment]
