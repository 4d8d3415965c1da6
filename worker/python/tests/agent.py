"""An agent for tests: the two pipes, the files and the folders that a program finds, and a program that runs among them.

Owns its temporary folder and the programs it starts, and ends both.
"""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

SOURCE = Path(__file__).resolve().parent.parent / "src"
# Far above what anything here takes, on a machine that is busy with other things.
LIMIT_S = 240.0


class FakeAgent:
    """Use as a context manager; `python(script)` runs a script to its end, `start(script)` beside the test."""

    def __init__(self, params: Optional[Dict[str, Any]] = None, python: str = sys.executable) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="spotsweep-python-")
        self.root = Path(self._folder.name)
        self.checkpoints = self.root / "checkpoints"
        self.stop_file = self.root / "stop"
        self.python = python
        self.params = params or {}
        self.resume: Optional[Dict[str, Any]] = None
        self.compat = False
        # Whether checkpoints are taken away as an agent does, the newest being the one to resume from.
        self.stores = False
        self.extra: Dict[str, str] = {}
        self.lines: List[Dict[str, Any]] = []
        self._partial = b""
        self._children: List["subprocess.Popen[bytes]"] = []
        self.checkpoints.mkdir()
        for name in ("to-agent", "from-agent"):
            os.mkfifo(self.root / name)
        # Open for both, as the agent has them: nobody's open waits, and nobody's end of file counts.
        self._to = os.open(self.root / "to-agent", os.O_RDWR | os.O_NONBLOCK)
        self._from = os.open(self.root / "from-agent", os.O_RDWR | os.O_NONBLOCK)

    def __enter__(self) -> "FakeAgent":
        return self

    def __exit__(self, *_: Any) -> None:
        for child in self._children:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        self.leave()
        os.close(self._from)
        self._folder.cleanup()

    def leave(self) -> None:
        """The agent is gone: nobody reads."""
        if self._to >= 0:
            os.close(self._to)
            self._to = -1

    def environment(self) -> Dict[str, str]:
        job: Dict[str, Any] = {"protocol": 1, "trial": "s/3", "number": 3, "attempt": 1, "params": self.params}
        if self.resume:
            job["resume"] = self.resume
        (self.root / "job.json").write_text(json.dumps(job))
        (self.root / "params.json").write_text(json.dumps(self.params))
        path = [str(SOURCE)] + ([str(SOURCE / "spotsweep" / "compat")] if self.compat else [])
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SPOTSWEEP_", "RANK"))},
            "PYTHONPATH": os.pathsep.join(path),
            "PYTHONDONTWRITEBYTECODE": "1",
            "SPOTSWEEP_TO_AGENT": str(self.root / "to-agent"),
            "SPOTSWEEP_FROM_AGENT": str(self.root / "from-agent"),
            "SPOTSWEEP_JOB": str(self.root / "job.json"),
            "SPOTSWEEP_PARAMS": str(self.root / "params.json"),
            "SPOTSWEEP_STOP": str(self.stop_file),
            "SPOTSWEEP_CHECKPOINTS": str(self.checkpoints),
            "SPOTSWEEP_TRIAL": "s/3",
            **self.extra,
        }
        if self.resume:
            environment["SPOTSWEEP_RESUME"] = str(self.resume["dir"])
        return environment

    def start(self, script: str, environment: Optional[Dict[str, str]] = None) -> "subprocess.Popen[bytes]":
        file = self.root / ("program-%d.py" % len(self._children))
        file.write_text(textwrap.dedent(script))
        with open(file.with_suffix(".out"), "wb") as output:
            child = subprocess.Popen(
                [self.python, str(file)],
                env=environment or self.environment(),
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._children.append(child)
        return child

    def run(self, script: str, environment: Optional[Dict[str, str]] = None) -> "tuple[int, str]":
        """Exit status and output. Reads along, so that the pipe never fills."""
        child = self.start(script, environment)
        return self.wait(child)

    def wait(self, child: "subprocess.Popen[bytes]") -> "tuple[int, str]":
        self.until(lambda: child.poll() is not None)
        self.take()
        output = self.root / ("program-%d.out" % self._children.index(child))
        return child.returncode, output.read_text(encoding="utf-8", errors="replace")

    def until(self, condition: Callable[[], bool]) -> None:
        """Waits for a condition, reading along."""
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError("waited %d s in vain; lines so far: %s" % (LIMIT_S, self.lines[-5:]))
            self.take(0.01)

    def take(self, wait_s: float = 0.0) -> None:
        """Reads what has come."""
        if self._to < 0:
            select.select([], [], [], wait_s)
            return
        while select.select([self._to], [], [], wait_s)[0]:
            parts = (self._partial + os.read(self._to, 1 << 16)).split(b"\n")
            self._partial = parts.pop()
            for line in map(json.loads, parts):
                if self.stores and line["type"] == "checkpoint":
                    self._store(line)
                self.lines.append(line)
            wait_s = 0.0

    def _store(self, line: Dict[str, Any]) -> None:
        place = self.root / ("stored-%d" % len(self.of("checkpoint")))
        shutil.move(line["dir"], place)
        line["dir"] = str(place)
        self.resume = {"step": line["step"], "dir": str(place)}

    def say(self, message: Dict[str, Any]) -> None:
        os.write(self._from, json.dumps(message).encode() + b"\n")

    def of(self, kind: str) -> List[Dict[str, Any]]:
        return [line for line in self.lines if line["type"] == kind]


def run_alone(script: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs a script as a person would, without an agent."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SPOTSWEEP_")}
    environment["PYTHONPATH"] = str(SOURCE)
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], env=environment, capture_output=True, encoding="utf-8"
    )
