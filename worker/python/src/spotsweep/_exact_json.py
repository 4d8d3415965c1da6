"""A state as JSON that comes back exactly: tuples as tuples, bytes as bytes, floats to the bit. Pure.

Plain JSON would make lists of tuples and texts of a dictionary's numbers, and a generator's state would not go back in.
"""

import base64
from typing import Any

# Marks what JSON does not have: an object with this one key, of `[kind, value]`.
MARK = "__spotsweep__"
# Deeper states are most likely circular.
DEPTH = 64


def encode(value: Any, path: str = "state", depth: int = 0) -> Any:
    """`value` in JSON's terms.

    # Errors: TypeError for anything else, with the place at which it stands.
    """
    if depth > DEPTH:
        raise TypeError("%s is nested deeper than %d" % (path, DEPTH))
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is list:
        return [encode(item, "%s[%d]" % (path, at), depth + 1) for at, item in enumerate(value)]
    if kind is tuple:
        return {MARK: ["tuple", [encode(item, "%s[%d]" % (path, at), depth + 1) for at, item in enumerate(value)]]}
    if kind in (bytes, bytearray):
        return {MARK: [kind.__name__, base64.b64encode(value).decode("ascii")]}
    if isinstance(value, dict):
        # Subclasses come back as plain dictionaries, in the same order.
        if all(type(key) is str for key in value) and MARK not in value:
            return {key: encode(item, "%s[%r]" % (path, key), depth + 1) for key, item in value.items()}
        pairs = [
            [encode(key, "a key of %s" % path, depth + 1), encode(item, "%s[%r]" % (path, key), depth + 1)]
            for key, item in value.items()
        ]
        return {MARK: ["dict", pairs]}
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "shape", None) == ():
        return encode(item(), path, depth + 1)
    raise TypeError(
        "%s is a %s, which a state cannot hold\n"
        "hint: numbers, text, bytes, lists, tuples and dictionaries; ExactState for PyTorch; or write a folder and "
        "save that" % (path, kind.__name__)
    )


def decode(value: Any) -> Any:
    """What `encode` was given.

    # Errors: ValueError for what it never writes.
    """
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) != {MARK}:
        return {key: decode(item) for key, item in value.items()}
    kind, inner = value[MARK]
    if kind == "tuple":
        return tuple(decode(item) for item in inner)
    if kind == "bytes":
        return base64.b64decode(inner, validate=True)
    if kind == "bytearray":
        return bytearray(base64.b64decode(inner, validate=True))
    if kind == "dict":
        return {decode(key): decode(item) for key, item in inner}
    raise ValueError("it holds a '%s', which this version does not know" % kind)
