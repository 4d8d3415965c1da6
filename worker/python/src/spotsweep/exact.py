"""A PyTorch program's whole state, so that it resumes to the same bits: `ExactState`. Must not know how it is trained.

A checkpoint holds `weights.safetensors`, the tensors of all modules, from which the trial's weights digest comes; and
`state.pt`, everything else. That one is read with `weights_only=True`: a pickle that is read otherwise runs whatever code it
names, and a checkpoint comes from an object store that others may write to.
"""

import collections
import importlib
import random
import sys
from pathlib import Path
from typing import Any, Dict, List, Mapping, Tuple

from . import _safetensors, checkpoint
from ._errors import CheckpointError

WEIGHTS_FILE = "weights.safetensors"
STATE_FILE = "state.pt"
VERSION = 1
# Marks what `weights_only` does not read: a tuple of this, a kind and a value.
MARK = "__spotsweep__"
# Deeper states are most likely circular.
DEPTH = 64


class ExactState:
    """All that a step of training depends on, saved and restored as one.

    ```python
    state = ExactState(model=model, optimizer=optimizer, scheduler=scheduler, sampler=sampler)
    step = state.load()          # 0 at the start
    ...
    state.save(step)
    ```

    A part is anything with `state_dict` and `load_state_dict` (modules, optimizers, schedulers, `torch.amp.GradScaler`,
    `ExactSampler`), a `torch.Generator`, or a list of such. The generators of Python's `random`, of NumPy and of PyTorch
    on the CPU and on CUDA come with it, without being named. Parts are named freely, and must be the same when it is loaded.

    Gradients are no part of it: save behind the optimizer's step, not while they are being accumulated.
    """

    def __init__(self, **parts: Any) -> None:
        self._torch = importlib.import_module("torch")
        self._parts: Dict[str, Any] = {}
        for name, part in parts.items():
            if part is None:
                continue
            many = isinstance(part, (list, tuple))
            for at, one in enumerate(part if many else [part]):
                if not self._is_generator(one) and not (hasattr(one, "state_dict") and hasattr(one, "load_state_dict")):
                    raise TypeError(
                        "part '%s' is a %s: it has no state_dict and load_state_dict" % (name, type(one).__name__)
                    )
                self._parts["%s.%d" % (name, at) if many else name] = one
        if not self._parts:
            raise TypeError("there is nothing to save: name the parts, ExactState(model=model, optimizer=optimizer)")

    def save(self, step: Any, *, last: bool = False) -> None:
        """Saves a checkpoint behind `step`. Without an agent, does nothing.

        # Errors
        CheckpointError if it cannot be written; TypeError if a part's state holds what could not be read back.
        """
        if not checkpoint.saves():
            return
        whole = checkpoint.step_of(step)
        weights, state = self._collect(whole)
        with checkpoint.writing(whole, last=last) as folder:
            if weights:
                _safetensors.write(self._torch, folder / WEIGHTS_FILE, weights)
            self._torch.save(state, folder / STATE_FILE)

    def load(self) -> int:
        """Restores the checkpoint to resume from, if there is one, and gives its step; 0 at the start of a trial.

        Build everything first: weights are copied into the model as it stands, and what was drawn while it was built is
        forgotten, for the generators are restored last.

        # Errors
        CheckpointError if it cannot be read or is that of other parts. The agent is told.
        """
        found = checkpoint.load()
        if found is None:
            return 0
        try:
            self._restore(found.dir)
        except Exception as error:
            raise checkpoint.unreadable("%s: %s" % (type(error).__name__, error)) from error
        return found.step

    # Saving

    def _collect(self, step: int) -> Tuple[Dict[str, Any], Dict[str, Any]]:
        weights: Dict[str, Any] = {}
        parts: Dict[str, Any] = {}
        for name, part in self._parts.items():
            if self._is_generator(part):
                parts[name] = part.get_state()
                continue
            state = part.state_dict()
            if isinstance(part, self._torch.nn.Module):
                prefix = self._prefix(name)
                rest = {}
                for key, value in state.items():
                    if self._torch.is_tensor(value) and _safetensors.fits(self._torch, value):
                        weights[prefix + key] = value
                    else:
                        rest[key] = value
                state = rest
            parts[name] = self._encode(state, name, 0)
        state = {"version": VERSION, "step": step, "parts": parts, "generators": self._generators()}
        return weights, state

    def _prefix(self, name: str) -> str:
        """Before the tensors of a module: nothing if it is the only one."""
        modules = [part for part in self._parts.values() if isinstance(part, self._torch.nn.Module)]
        return "" if len(modules) == 1 else name + "."

    def _is_generator(self, part: Any) -> bool:
        return isinstance(part, self._torch.Generator)

    def _generators(self) -> Dict[str, Any]:
        torch = self._torch
        generators: Dict[str, Any] = {
            "python": self._encode(random.getstate(), "random", 0),
            "torch": torch.get_rng_state(),
            # Whoever has not used CUDA so far would start it by asking.
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        }
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            generators["numpy"] = self._encode(numpy.random.get_state(), "numpy.random", 0)
        return generators

    def _encode(self, value: Any, path: str, depth: int) -> Any:
        """`value` in terms that `weights_only` reads; a TypeError with the place of what is not."""
        torch = self._torch
        kind = type(value)
        if depth > DEPTH:
            raise TypeError("the state of %s is nested deeper than %d" % (path, DEPTH))
        if value is None or kind in (bool, int, float, str, bytes, torch.dtype, torch.device, torch.Size):
            return value
        if torch.is_tensor(value):
            return value.detach()
        if kind in (list, tuple, set):
            items = [self._encode(item, "%s[%d]" % (path, at), depth + 1) for at, item in enumerate(value)]
            return items if kind is list else tuple(items) if kind is tuple else (MARK, "set", items)
        if isinstance(value, dict):
            pairs = {key: self._encode(item, "%s[%r]" % (path, key), depth + 1) for key, item in value.items()}
            if isinstance(value, collections.Counter):
                return (MARK, "counter", pairs)
            return pairs
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(value, numpy.ndarray) and value.dtype.kind in "biuf":
            # As bytes: PyTorch has not every dtype of NumPy.
            raw = torch.frombuffer(bytearray(value.tobytes()), dtype=torch.uint8) if value.size else torch.empty(0, dtype=torch.uint8)
            return (MARK, "array", [value.dtype.str, list(value.shape), raw])
        if numpy is not None and isinstance(value, numpy.generic):
            return value.item()
        raise TypeError(
            "the state of %s is a %s, which cannot be saved so that it is read back safely\n"
            "hint: leave that part out, or give it a state_dict of numbers, text and tensors" % (path, kind.__name__)
        )

    # Loading

    def _restore(self, folder: Path) -> None:
        torch = self._torch
        state = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True)
        if state["version"] != VERSION:
            raise CheckpointError("it has version %r, and this is version %d" % (state["version"], VERSION))
        saved, here = set(state["parts"]), set(self._parts)
        if saved != here:
            raise CheckpointError(
                "it was saved with the parts %s, and there are %s" % (", ".join(sorted(saved)), ", ".join(sorted(here)))
            )
        weights = _safetensors.read(torch, folder / WEIGHTS_FILE) if (folder / WEIGHTS_FILE).exists() else {}
        for name, part in self._parts.items():
            if self._is_generator(part):
                part.set_state(state["parts"][name])
                continue
            value = self._decode(state["parts"][name])
            if isinstance(part, torch.nn.Module):
                prefix = self._prefix(name)
                value.update((key[len(prefix) :], tensor) for key, tensor in weights.items() if key.startswith(prefix))
            part.load_state_dict(value)
            if isinstance(part, torch.optim.Optimizer):
                self._keep_dtypes(part, value)
        # Last: to load may draw.
        self._set_generators(state["generators"])

    def _keep_dtypes(self, optimizer: Any, saved: Mapping[str, Any]) -> None:
        """PyTorch gives moments the dtype of their parameter; those that had another would lose bits."""
        here = self._numbered(optimizer)
        for number, values in saved["state"].items():
            parameter = here[number]
            for name, value in values.items():
                present = optimizer.state[parameter].get(name)
                if self._torch.is_tensor(value) and self._torch.is_tensor(present) and present.dtype != value.dtype:
                    optimizer.state[parameter][name] = value.to(present.device)

    @staticmethod
    def _numbered(optimizer: Any) -> List[Any]:
        """Parameters in the order in which a state_dict numbers them."""
        return [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def _set_generators(self, generators: Mapping[str, Any]) -> None:
        torch = self._torch
        random.setstate(self._decode(generators["python"]))
        if "numpy" in generators:
            importlib.import_module("numpy").random.set_state(self._decode(generators["numpy"]))
        torch.set_rng_state(generators["torch"])
        for device, state in enumerate(generators["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state, device)

    def _decode(self, value: Any) -> Any:
        kind = type(value)
        if kind is tuple and len(value) == 3 and value[0] == MARK:
            return self._unmark(value[1], value[2])
        if kind in (list, tuple):
            return kind(self._decode(item) for item in value)
        if isinstance(value, dict):
            return {key: self._decode(item) for key, item in value.items()}
        return value

    def _unmark(self, kind: str, inner: Any) -> Any:
        if kind == "set":
            return {self._decode(item) for item in inner}
        if kind == "counter":
            return collections.Counter(self._decode(inner))
        if kind == "array":
            numpy = importlib.import_module("numpy")
            dtype, shape, raw = inner
            return numpy.frombuffer(bytes(raw.tolist()), dtype=dtype).reshape(shape).copy()
        raise CheckpointError("it holds a '%s', which this version does not know" % kind)
