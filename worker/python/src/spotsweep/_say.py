"""What a program says and asks while it trains. Must not know how it gets to the agent."""

import os
import sys
import threading
from typing import Any, Dict, Mapping, NoReturn, Optional

from . import _metrics
from ._errors import warn_once
from ._link import TRIAL, inside, link

# As the agent has them.
REASONS = ("internal", "config", "data", "checkpoint", "out_of_memory", "storage", "diverged")
FAILURE_TEXT_BYTES = 4096

# Reentrant, for a signal handler may report in the middle of a report.
_lock = threading.RLock()
_last_step: Optional[int] = None
_ended = False


def has_ended() -> bool:
    """Whether the program has said how it ends."""
    return _ended


def _end(message: Dict[str, Any]) -> None:
    global _ended
    _ended = True
    link.send(message)


def trial() -> Optional[str]:
    """The trial, `sweep/number`; None where no agent started the program."""
    return os.environ.get(TRIAL) or None


def report(step: Any, metrics: Optional[Mapping[str, Any]] = None, /, *, epoch: Optional[float] = None, **named: Any) -> None:
    """Reports metrics at a step: `report(10, loss=0.5)` or `report(10, {"val/loss": 0.5})`.

    `step` counts up from report to report, in whatever the program counts: optimizer steps, epochs. One that is not above
    the last is left out with a warning. `epoch` says how often the data was seen, as a fraction; a metric of that name goes
    into the mapping. Values are numbers: Python's, NumPy's, or tensors with one element. Text and anything else is left out
    with a warning; NaN and infinities are counted by the agent, but not kept.

    Without an agent, prints one line: `step 10 loss=0.5`.

    # Errors
    TypeError or ValueError if `step` is no whole number from 0 on.
    """
    global _last_step
    whole = _metrics.read_step(step)
    if not link.speaks():
        return
    kept = _metrics.clean({**(metrics or {}), **named})
    with _lock:
        if _last_step is not None and whole <= _last_step:
            warn_once(
                "step",
                "",
                "a report at step %d is left out: step %d was reported before\n"
                "hint: one report a step, with all its metrics" % (whole, _last_step),
            )
            return
        _last_step = whole
        if inside():
            message: Dict[str, Any] = {"type": "report", "step": whole, "metrics": kept}
            if epoch is not None:
                message["data_epoch"] = _data_epoch(epoch)
            link.send(message)
        else:
            _print("step %d" % whole, kept)


def should_stop() -> bool:
    """Whether the program shall write a checkpoint and end. Costs microseconds: ask after each step.

    True once the agent says so, by its pipe, by a file or by SIGTERM, or is gone. The first call, if it is made in the main
    thread and SIGTERM has no handler, installs one; so a program that asks is not ended by SIGTERM, and one that does
    not ask is. From the first true answer on, the program has the sweep's grace (30 s by default) or what a notice leaves.

    Without an agent, true after SIGTERM.
    """
    return link.stop_is_told()


def stopped(step: Any) -> None:
    """Says that the program ends because it was told to, behind its last checkpoint. Return or exit after it."""
    if link.speaks() and inside():
        _end({"type": "stopped", "step": _metrics.read_step(step)})


def done(step: Any = None, metrics: Optional[Mapping[str, Any]] = None, /, **named: Any) -> None:
    """Says that the trial is finished, with its final metrics: those given here besides the last that were reported.

    Without it, an exit with status 0 says the same. Without an agent, prints one line.
    """
    if not link.speaks():
        return
    kept = _metrics.clean({**(metrics or {}), **named})
    if inside():
        message: Dict[str, Any] = {"type": "done"}
        if step is not None:
            message["step"] = _metrics.read_step(step)
        if kept:
            message["metrics"] = kept
        _end(message)
    else:
        _print("done" if step is None else "done at step %d" % _metrics.read_step(step), kept)


def tell_failure(message: str, reason: str) -> None:
    """Says that the trial cannot go on, and why."""
    if reason not in REASONS:
        raise ValueError("there is no reason '%s' to fail: it is one of %s" % (reason, ", ".join(REASONS)))
    if link.speaks() and inside():
        text = message.encode("utf-8", "replace")[:FAILURE_TEXT_BYTES].decode("utf-8", "ignore")
        _end({"type": "failed", "reason": reason, "message": text})


def fail(message: str, *, reason: str = "internal") -> NoReturn:
    """Says why the trial failed and exits with status 1, by SystemExit.

    `reason` is `internal`, `config` (this trial can never work), `data`, `checkpoint` (the one to resume from cannot be
    read: the trial goes on from the one before), `out_of_memory`, `storage` or `diverged`. After `config` and `diverged`
    the trial is not tried again.
    """
    tell_failure(message, reason)
    print("failed (%s): %s" % (reason, message), file=sys.stderr)
    raise SystemExit(1)


def _data_epoch(epoch: Any) -> float:
    number = _metrics.number_of(epoch)
    if number is None or not 0 <= number < float("inf"):
        raise ValueError("epoch is %r: it must be a number from 0 on" % (epoch,))
    return float(number)


def _print(head: str, metrics: Mapping[str, Any]) -> None:
    values = ("%s=%.6g" % (name, value) if isinstance(value, float) else "%s=%s" % (name, value) for name, value in metrics.items())
    print(" ".join([head, *values]), flush=True)
