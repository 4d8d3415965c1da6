"""`wandb.config`: parameters by name, of which those that the sweep has chosen do not change."""

from typing import Any, Dict, Iterator, Mapping, MutableMapping

import spotsweep


class Config(MutableMapping[str, Any]):
    """A mapping whose items are attributes too. What the sweep has chosen stays as it is, with a warning, as with W&B."""

    def __init__(self, chosen: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_chosen", frozenset(chosen))
        object.__setattr__(self, "_values", dict(chosen))

    _chosen: "frozenset[str]"
    _values: Dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if name not in self._chosen:
            self._values[name] = value
        elif value != self._values[name]:
            spotsweep._errors.warn_once(
                "config",
                name,
                "config item '%s' stays %r: the sweep has chosen it" % (name, self._values[name]),
            )

    def __delitem__(self, name: str) -> None:
        if name in self._chosen:
            raise KeyError("'%s' is chosen by the sweep" % name)
        del self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getattr__(self, name: str) -> Any:
        try:
            return object.__getattribute__(self, "_values")[name]
        except KeyError:
            raise AttributeError("wandb.config has no '%s'" % name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __repr__(self) -> str:
        return repr(self._values)

    # More than W&B's has, fewer than a dictionary: values differ from place to place, names do not.
    def update(self, values: Any = (), /, allow_val_change: Any = None, **named: Any) -> None:
        """Sets several; also from the namespace of argparse."""
        for name, value in _mapping(values, named).items():
            self[name] = value

    def setdefaults(self, values: Any) -> None:
        """Sets those that are not there."""
        for name, value in _mapping(values, {}).items():
            self._values.setdefault(name, value)

    def as_dict(self) -> Dict[str, Any]:
        """A copy."""
        return dict(self._values)


def _mapping(values: Any, named: Mapping[str, Any]) -> Dict[str, Any]:
    if isinstance(values, (str, bytes)):
        raise TypeError("wandb.config takes a dictionary: files of it are not supported by `compat: wandb`")
    if not isinstance(values, Mapping) and hasattr(values, "__dict__"):
        values = vars(values)
    return {**dict(values), **named}
