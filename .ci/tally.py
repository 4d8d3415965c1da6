#!/usr/bin/env python3
"""Runs make targets one after another and says at the end how many checks passed and failed.

    tally.py TARGET...

Owns the counting. What a target does is the Makefile's business. A target goes on being run when an earlier one
failed, so that one run shows everything. Counted are the tests that cargo's and Python's runners report; a
target without tests counts as one check, and so does a target that fails for another reason than a test. A target
that says `skipped: ...` and has no tests counts as nothing.
The last line is `N passed, N failed`; the exit status is 0 only if nothing failed.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from typing import Iterable, List, NamedTuple

# A target that takes longer hangs; a cold build on two cores takes a third of this.
TARGET_LIMIT_S = 45 * 60

CARGO = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed;")
PYTHON_RAN = re.compile(r"^Ran (\d+) tests? in ")
SKIPPED = re.compile(r"^skipped: ")
PYTHON_ENDED = re.compile(r"^(?:OK|FAILED)(?: \((.*)\))?$")


class Outcome(NamedTuple):
    """What one target came to."""

    target: str
    passed: int
    failed: int
    seconds: float


def count(lines: Iterable[str]) -> "tuple[int, int]":
    """Passed and failed tests in what a target printed."""
    passed = failed = ran = 0
    for line in lines:
        cargo = CARGO.match(line)
        python = PYTHON_RAN.match(line)
        ended = PYTHON_ENDED.match(line)
        if cargo:
            passed += int(cargo.group(1))
            failed += int(cargo.group(2))
        elif python:
            ran = int(python.group(1))
        elif ended and ran:
            parts = dict(re.findall(r"(\w[\w ]*)=(\d+)", ended.group(1) or ""))
            bad = sum(int(parts.get(kind, 0)) for kind in ("failures", "errors", "unexpected successes"))
            skipped = int(parts.get("skipped", 0))
            passed += max(0, ran - bad - skipped)
            failed += bad
            ran = 0
    return passed, failed


def settle(target: str, status: int, lines: Iterable[str], seconds: float) -> Outcome:
    """The outcome of a target that ended with `status`."""
    passed, failed = count(lines)
    if status != 0 and failed == 0:
        failed = 1
    elif passed == 0 and failed == 0 and not any(SKIPPED.match(line) for line in lines):
        passed = 1
    return Outcome(target, passed, failed, seconds)


def run(target: str) -> Outcome:
    """Runs one make target, showing what it prints."""
    print("== %s" % target, flush=True)
    begun = time.monotonic()
    lines: List[str] = []
    command = [os.environ.get("MAKE", "make"), "--no-print-directory", target]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as child:
        # The group, for a test may have started programs that hold the pipe open.
        limit = threading.Timer(TARGET_LIMIT_S, os.killpg, (child.pid, signal.SIGKILL))
        limit.start()
        try:
            for line in child.stdout:
                sys.stdout.write(line)
                sys.stdout.flush()
                if any(kind.match(line.rstrip()) for kind in (CARGO, PYTHON_RAN, PYTHON_ENDED, SKIPPED)):
                    lines.append(line.rstrip())
            status = child.wait()
        except BaseException:
            os.killpg(child.pid, signal.SIGTERM)
            raise
        finally:
            limit.cancel()
    return settle(target, status, lines, time.monotonic() - begun)


def main(targets: List[str]) -> int:
    outcomes = []
    try:
        for target in targets:
            outcomes.append(run(target))
    except KeyboardInterrupt:
        print("interrupted")
        return 130
    print("\n%-16s %8s %8s %9s" % ("", "passed", "failed", "seconds"))
    for outcome in outcomes:
        print("%-16s %8d %8d %9.1f" % outcome)
    passed, failed = sum(o.passed for o in outcomes), sum(o.failed for o in outcomes)
    print("\n%d passed, %d failed" % (passed, failed), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
