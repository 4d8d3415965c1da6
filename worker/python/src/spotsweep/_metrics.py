"""Metrics as a program has them, made into what a report may carry. Pure but for warnings."""

import math
import operator
from typing import Any, Dict, Mapping, Optional, Union

from ._errors import warn_once

# As the agent and the coordinator have them.
METRICS_PER_REPORT = 256
NAME_BYTES = 128
STEPS_PER_TRIAL = 1_000_000_000_000

# Numbers, and the words that stand for those which JSON does not have.
Sent = Union[int, float, str]


def read_step(step: Any) -> int:
    """`step` as an integer: a Python or NumPy integer, or a float or tensor that is one.

    # Errors: TypeError or ValueError for anything else.
    """
    if isinstance(step, (bool, str, bytes)):
        raise TypeError("step is %r: it must be a whole number" % (step,))
    try:
        whole = operator.index(step)
    except TypeError:
        try:
            number = float(step)
        except (TypeError, ValueError) as error:
            raise TypeError("step is %r: it must be a whole number" % (step,)) from error
        if not number.is_integer():
            raise ValueError("step is %r: it must be a whole number" % (step,)) from None
        whole = int(number)
    if not 0 <= whole <= STEPS_PER_TRIAL:
        raise ValueError("step is %d: it must lie between 0 and %d" % (whole, STEPS_PER_TRIAL))
    return whole


def number_of(value: Any) -> Optional[Union[int, float]]:
    """`value` as a number, if it is one: of Python, NumPy, or a tensor with one element."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, (int, float)):
        # Subclasses, such as NumPy's float64 or an IntEnum, as what they are.
        return int(value) if isinstance(value, int) else float(value)
    if isinstance(value, (str, bytes, bytearray)) or value is None:
        return None
    # Arrays and tensors: more than one element is no number, and what a float of it says differs between libraries.
    try:
        size = getattr(value, "numel", None)
        elements = size() if callable(size) else getattr(value, "size", 1)
        if isinstance(elements, int) and elements != 1:
            return None
        item = getattr(value, "item", None)
        number = float(item() if callable(item) else value)
    except Exception:  # Whatever a foreign object does when it is asked: it is no number.
        return None
    return number


def _sent(value: Union[int, float]) -> Sent:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf if value > 0 else -math.inf
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    # An integer beyond 2^53 would come out of other JSON readers as another one.
    return value if isinstance(value, float) or abs(value) <= 1 << 53 else number


def clean(metrics: Mapping[Any, Any]) -> Dict[str, Sent]:
    """What of `metrics` a report may carry. What it may not is warned of, once for each name, and left out.

    NaN and the infinities are sent by name: the agent leaves them out of the curves and counts them.
    """
    kept: Dict[str, Sent] = {}
    for name, value in metrics.items():
        if len(kept) >= METRICS_PER_REPORT:
            warn_once(
                "many", "", "a report has %d metrics: the first %d are kept" % (len(metrics), METRICS_PER_REPORT)
            )
            break
        if not isinstance(name, str) or not name:
            warn_once("name", repr(name)[:NAME_BYTES], "metric %.200r is left out: its name is no text" % (name,))
            continue
        if len(name.encode("utf-8", "replace")) > NAME_BYTES or not name.isprintable():
            warn_once(
                "name",
                name[:NAME_BYTES],
                "metric %.200r is left out: a name has at most %d bytes, all of them printable" % (name, NAME_BYTES),
            )
            continue
        number = number_of(value)
        if number is None:
            warn_once(
                "value",
                name,
                "metric '%s' is left out: %s is no number\n"
                "hint: report one number a name; text and pictures belong into files" % (name, _describe(value)),
            )
            continue
        sent = _sent(number)
        if isinstance(sent, str):
            warn_once("finite", name, "metric '%s' is %s: such values are counted, but not kept" % (name, sent))
        kept[name] = sent
    return kept


def _describe(value: Any) -> str:
    kind = type(value).__name__
    if isinstance(value, (str, bytes)):
        return "%s %.40r" % (kind, value)
    shape = getattr(value, "shape", None)
    return "%s of shape %s" % (kind, tuple(shape)) if isinstance(shape, tuple) else "a %s" % kind
