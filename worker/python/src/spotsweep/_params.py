"""The trial's parameters: from the agent, or from the program's flags where there is none. Must not report anything."""

import ast
import json
from typing import Any, Dict, Iterable, List, Mapping

from ._errors import SpotsweepError
from ._link import PARAMS, command_line, read_json


class Params(Dict[str, Any]):
    """Parameters by name; nested ones are `Params` too. `p["optimizer"]["momentum"]` is `p.optimizer.momentum`.

    A parameter with the name of a method of `dict`, such as `items`, is only `p["items"]`.
    """

    def __getattr__(self, name: str) -> Any:
        # What pickle and copy look for is no parameter.
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            known = ", ".join(sorted(self)) or "none"
            raise AttributeError(
                "there is no parameter '%s'; there are: %s\n"
                "hint: a default goes into params(%s=...)" % (name, known, name)
            ) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


def params(**defaults: Any) -> Params:
    """The parameters of the trial, over `defaults`.

    Without an agent: the defaults, and over them what the program's flags say, as the agent would write them:
    `--learning_rate=0.1 --amp=True --optimizer="{'name': 'sgd'}" --optimizer.momentum=0.9`. Other arguments are left alone. A
    value is read as JSON or as Python's own, else as text; where there is a default, it must be of the default's type.

    # Errors
    SpotsweepError if the agent's file cannot be read, or a flag has not the type of its default.
    """
    merged = _nested(defaults)
    given = read_json(PARAMS)
    if given is None:
        for name, text in _flags(command_line()):
            _put(merged, name, text)
    elif isinstance(given, dict):
        _merge(merged, given)
    else:
        raise SpotsweepError("the file that %s names holds no JSON object" % PARAMS)
    return merged


def _nested(values: Mapping[str, Any]) -> Params:
    return Params((name, _nested(value) if isinstance(value, Mapping) else value) for name, value in values.items())


def _merge(into: Params, given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        present = into.get(name)
        if isinstance(value, Mapping) and isinstance(present, Params):
            _merge(present, value)
        elif isinstance(value, Mapping):
            into[name] = _nested(value)
        elif type(present) is float and type(value) is int:
            # JSON does not tell 1 from 1.0.
            into[name] = float(value)
        else:
            into[name] = value


def _flags(arguments: Iterable[str]) -> "List[tuple[str, str]]":
    found = []
    for argument in arguments:
        if argument == "--":
            break
        if argument.startswith("--") and "=" in argument:
            name, text = argument[2:].split("=", 1)
            found.append((name, text))
    return found


def _put(into: Params, name: str, text: str) -> None:
    present = into.get(name)
    outer, dot, inner = name.partition(".")
    if name not in into and dot and outer and inner:
        nested = into.setdefault(outer, Params())
        if isinstance(nested, Params):
            _put(nested, inner, text)
            return
    value = _read(text)
    if isinstance(present, str):
        value = text
    elif type(present) is float and type(value) is int:
        value = float(value)
    if present is not None and value is not None and type(value) is not type(present):
        if not (isinstance(present, Params) and isinstance(value, Mapping)) and not isinstance(present, (list, tuple)):
            raise SpotsweepError("--%s=%s is no %s, as its default is" % (name, text, type(present).__name__))
    _merge(into, {name: value})


def _read(text: str) -> Any:
    """A value as JSON or as Python writes it, which is how an agent writes flags; else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return value if value is None or isinstance(value, (bool, dict, list)) else text
