"""What the user sees of a download: one moving line on a terminal, a few plain lines elsewhere.

Owns the output on stderr. It must not print to stdout, which carries the result.
"""

import contextlib
import time
from typing import Callable, Iterator, TextIO

# Redraws on a terminal, and lines elsewhere, come no more often than this.
REDRAW_S = 0.1
PLAIN_STEP_PERCENT = 25
_BAR_CELLS = 30
_MB = 1_000_000


class Progress:
    """Tells a person how far the work is."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.moving = out.isatty()

    def say(self, line: str) -> None:
        """One line, of which nothing is taken back."""
        print(line, file=self.out, flush=True)

    @contextlib.contextmanager
    def part(self, name: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
        """A part of the work; what it yields is to be told how many bytes came."""
        begun = drawn = time.monotonic()
        came = 0
        next_percent = PLAIN_STEP_PERCENT

        def advance(count: int) -> None:
            nonlocal came, drawn, next_percent
            came += count
            percent = 100 * came // max(1, total_bytes)
            if self.moving:
                now = time.monotonic()
                if now - drawn >= REDRAW_S:
                    drawn = now
                    filled = _BAR_CELLS * came // max(1, total_bytes)
                    bar = "#" * filled + "-" * (_BAR_CELLS - filled)
                    self.out.write("\r%s [%s] %d of %d MB " % (name, bar, came // _MB, total_bytes // _MB))
                    self.out.flush()
            elif percent >= next_percent and total_bytes > 10 * _MB:
                next_percent = percent - percent % PLAIN_STEP_PERCENT + PLAIN_STEP_PERCENT
                self.say("%s: %d of %d MB" % (name, came // _MB, total_bytes // _MB))

        try:
            yield advance
        finally:
            if self.moving:
                self.out.write("\r\x1b[K")
        self.say("%s: %.1f MB in %.1f s" % (name, came / _MB, time.monotonic() - begun))
