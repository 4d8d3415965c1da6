"""The order in which samples are seen: a function of a seed and the epoch, with a position that is saved and restored.

Pure Python: the order is the same with any version of any library, and on any machine.
"""

import hashlib
import random
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sized, Union

from ._errors import SpotsweepError


class ExactSampler:
    """A batch sampler for `torch.utils.data.DataLoader(batch_sampler=...)`, and without PyTorch.

    ```python
    sampler = ExactSampler(dataset, batch_size=64, seed=1)
    loader = DataLoader(dataset, batch_sampler=sampler)
    state = ExactState(model=model, optimizer=optimizer, sampler=sampler)
    step = state.load()
    for epoch in range(sampler.epoch, epochs):
        for batch in sampler.over(loader):
            ...
    ```

    `over` counts the batches that the training loop has been given, whatever a loader's workers have fetched ahead. After a
    resume it goes on in the middle of an epoch with the next batch. `size` is a data set or its length; `seed` is any
    integer; `shuffle=False` keeps the order; `drop_last` leaves out a last, smaller batch.
    """

    def __init__(
        self,
        size: Union[int, Sized],
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
    ) -> None:
        self.size = size if isinstance(size, int) else len(size)
        if self.size < 1 or batch_size < 1:
            raise ValueError("there are %d samples in batches of %d: both must be 1 at least" % (self.size, batch_size))
        self.batch_size = int(batch_size)
        self.seed = int(seed)
        self.shuffle = bool(shuffle)
        self.drop_last = bool(drop_last)
        self.epoch = 0
        self.position = 0
        self._counts = False
        self._uncounted = False

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        whole, rest = divmod(self.size, self.batch_size)
        return whole if self.drop_last or not rest else whole + 1

    def __iter__(self) -> Iterator[List[int]]:
        """The batches of the present epoch that have not been trained yet."""
        self._uncounted = self._uncounted or not self._counts
        order = self.order(self.epoch)
        for batch in range(self.position, len(self)):
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size]

    def over(self, loader: Optional[Iterable[Any]] = None) -> Iterator[Any]:
        """The rest of the present epoch, by way of `loader` (else as lists of indices); then the next epoch is the present.

        A batch counts as trained from the moment it is given out: save behind its step, not before.
        """
        self._counts = True
        if self.position == 0:
            batches = iter(self if loader is None else loader)
        else:
            # A DataLoader draws a seed for its workers as its epoch begins. This one has drawn it already.
            with _kept_generator():
                batches = iter(self if loader is None else loader)
        for batch in batches:
            self.position += 1
            yield batch
        self.epoch += 1
        self.position = 0

    def order(self, epoch: int) -> List[int]:
        """All samples in the order of an epoch."""
        order = list(range(self.size))
        if self.shuffle:
            digest = hashlib.sha256(b"spotsweep.ExactSampler %d %d" % (self.seed, epoch)).digest()
            draw = random.Random(int.from_bytes(digest, "little")).random
            # Fisher and Yates by way of random(), the one method whose numbers Python promises to keep.
            for last in range(self.size - 1, 0, -1):
                other = int(draw() * (last + 1))
                order[last], order[other] = order[other], order[last]
        return order

    def state_dict(self) -> Dict[str, Any]:
        """The position, and what it depends on."""
        if self._uncounted:
            raise SpotsweepError(
                "the sampler does not know which batches were trained\n"
                "hint: `for batch in sampler.over(loader)` instead of `for batch in loader`"
            )
        return {"epoch": self.epoch, "position": self.position, **self._made_of()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a position.

        # Errors: ValueError if it is that of another sampler.
        """
        for name, value in self._made_of().items():
            if state[name] != value:
                raise ValueError("the checkpoint's sampler has %s=%r, this one %r" % (name, state[name], value))
        self.epoch = int(state["epoch"])
        self.position = int(state["position"])

    def _made_of(self) -> Dict[str, Any]:
        return {
            "size": self.size,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
        }


class _kept_generator:
    """PyTorch's generator is as it was, behind the block. Nothing where PyTorch is not in use."""

    def __enter__(self) -> None:
        import sys

        self._torch: Any = sys.modules.get("torch")
        self._state: Any = self._torch.get_rng_state() if self._torch is not None else None

    def __exit__(self, *_: object) -> None:
        if self._torch is not None:
            self._torch.set_rng_state(self._state)
