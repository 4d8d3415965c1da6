"""The link to the agent: two named pipes, one JSON object a line each way, and which process of a program uses them.

Owns the environment variables, the pipes, SIGTERM, and what a fork may do. Must not know what the messages are about.

One process of a program speaks: the one that imported this package first. Processes of `multiprocessing` (the workers of a
data loader among them), children of a fork, and ranks other than 0 are silent: what they would say is dropped.
"""

import collections
import errno
import json
import os
import select
import signal
import sys
import threading
from typing import Any, Deque, Dict, List, Optional

from ._errors import SpotsweepError, warn_once

TO_AGENT = "SPOTSWEEP_TO_AGENT"
FROM_AGENT = "SPOTSWEEP_FROM_AGENT"
JOB = "SPOTSWEEP_JOB"
PARAMS = "SPOTSWEEP_PARAMS"
STOP = "SPOTSWEEP_STOP"
RESUME = "SPOTSWEEP_RESUME"
CHECKPOINTS = "SPOTSWEEP_CHECKPOINTS"
TRIAL = "SPOTSWEEP_TRIAL"
# Set by torchrun and its like for each process that trains.
RANK = "RANK"

# As the agent has it: a longer line would end the attempt.
LINE_BYTES = 1 << 20
# A file of the agent that is longer is not one.
JOB_FILE_BYTES = 64 << 20
# Bytes that are read from the agent at once.
READ_BYTES = 1 << 16


def inside() -> bool:
    """Whether an agent started this program."""
    return bool(os.environ.get(TO_AGENT))


def _is_child_of_multiprocessing() -> bool:
    # Its children have imported it; to import it just to ask takes longer than all else here.
    module = sys.modules.get("multiprocessing.process")
    if module is None:
        return False
    # While a process that was started afresh imports the main module, it has no parent yet, but says so otherwise.
    return module.parent_process() is not None or getattr(module.current_process(), "_inheriting", False)


class Link:
    """The process's side of the two pipes. Use `link`; there is one."""

    def __init__(self) -> None:
        # None: by what kind of process this is.
        self._speaker: Optional[bool] = None
        self._queue: Deque[bytes] = collections.deque()
        self._lock = threading.RLock()
        self._writing = False
        self._write_fd: Optional[int] = None
        self._read_fd: Optional[int] = None
        self._partial = b""
        self._gone = False
        self._asked = False
        self._terminated = False
        self._handles_sigterm = False
        # What was blocked before a fork, by thread.
        self._masks: Dict[int, Any] = {}
        # A line of the agent, or nothing yet.
        self._stop: Optional[Dict[str, Any]] = None
        self._checkpoint_wanted = False

    def speaks(self) -> bool:
        """Whether this process speaks for the program."""
        here = not _is_child_of_multiprocessing() if self._speaker is None else self._speaker
        return here and os.environ.get(RANK, "0") in ("", "0")

    def speak_from_here(self) -> None:
        """Makes this process the one that speaks."""
        self._speaker = True

    # What goes to the agent

    def send(self, message: Dict[str, Any]) -> None:
        """Sends one line, behind those that were sent before.

        Waits while the pipe is full. Once the agent is gone, nothing is sent, and `stop_is_told` says so.
        """
        if not self.speaks() or self._gone:
            return
        line = json.dumps(message, allow_nan=False, separators=(",", ":")).encode("ascii")
        if len(line) > LINE_BYTES:
            raise SpotsweepError(
                "a message of %d bytes is longer than the %d that a line may have" % (len(line), LINE_BYTES)
            )
        self._queue.append(line + b"\n")
        with self._lock:
            # Whoever comes in here is a signal handler in the middle of a write: its line follows behind.
            if self._writing:
                return
            self._writing = True
            try:
                while self._queue:
                    self._write(self._queue.popleft())
            finally:
                self._writing = False

    def _write(self, line: bytes) -> None:
        try:
            if self._write_fd is None:
                # Without O_NONBLOCK this would wait for ever once the agent is gone.
                self._write_fd = os.open(os.environ[TO_AGENT], os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                os.set_blocking(self._write_fd, True)
            view = memoryview(line)
            while view:
                view = view[os.write(self._write_fd, view) :]
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        self._gone = True
        self._queue.clear()
        what = "closed" if error.errno in (errno.EPIPE, errno.ENXIO) else str(error)
        warn_once(
            "gone",
            "",
            "the agent cannot be reached any more (%s): nothing is reported, and should_stop() is true" % what,
            stacklevel=6,
        )

    # What comes from the agent

    def _read(self) -> None:
        """Takes in what the agent has sent since, without waiting."""
        path = os.environ.get(FROM_AGENT)
        if not path or not self.speaks():
            return
        with self._lock:
            try:
                if self._read_fd is None:
                    self._read_fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                while True:
                    data = os.read(self._read_fd, READ_BYTES)
                    if not data:
                        return
                    lines = (self._partial + data).split(b"\n")
                    self._partial = lines.pop()[:LINE_BYTES]
                    for line in lines:
                        self._hear(line)
            except BlockingIOError:
                return
            except OSError as error:
                warn_once("from", "", "cannot read from the agent: %s" % error)

    def _hear(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            return
        if not isinstance(message, dict):
            return
        # What a later agent says besides is for later versions of this package.
        if message.get("type") == "stop":
            self._stop = message
        elif message.get("type") == "checkpoint":
            self._checkpoint_wanted = True

    def stop_is_told(self) -> bool:
        """Whether the program shall end, by whichever way the agent says it."""
        self._watch_sigterm()
        if not inside():
            return self._terminated
        self._read()
        return (
            self._terminated
            or self._stop is not None
            or self._agent_is_gone()
            or bool(os.environ.get(STOP)) and os.path.lexists(os.environ[STOP])
        )

    def checkpoint_is_wanted(self) -> bool:
        """Whether the agent waits for a checkpoint."""
        if not inside() or not self.speaks():
            return False
        self._read()
        folder = os.environ.get(CHECKPOINTS)
        return (
            self._checkpoint_wanted
            or (self._stop is not None and self._stop.get("checkpoint") is not False)
            or bool(folder) and os.path.lexists(os.path.join(str(folder), ".due"))
        )

    def checkpoint_was_made(self) -> None:
        """Until the agent asks again, none is wanted."""
        self._checkpoint_wanted = False

    def _agent_is_gone(self) -> bool:
        if self._gone or self._write_fd is None:
            return self._gone
        poll = select.poll()
        poll.register(self._write_fd, 0)
        if any(events & select.POLLERR for _, events in poll.poll(0)):
            self._lose(BrokenPipeError(errno.EPIPE, "closed"))
        return self._gone

    # Signals and forks

    def _watch_sigterm(self) -> None:
        """From the first question on, SIGTERM is an answer to it; a program that never asks ends by it, as always."""
        if self._asked or threading.current_thread() is not threading.main_thread():
            return
        self._asked = True
        if self.speaks() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._on_sigterm)
            self._handles_sigterm = True

    def _on_sigterm(self, _signal: int, _frame: Any) -> None:
        self._terminated = True

    def before_fork(self) -> None:
        """SIGTERM waits until the child has left the group."""
        if inside() and self.speaks():
            self._masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def after_fork_in_parent(self) -> None:
        """SIGTERM arrives again."""
        mask = self._masks.pop(threading.get_ident(), None)
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def after_fork(self) -> None:
        """In the child: it is silent, SIGTERM ends it, and the agent's SIGTERM does not reach it.

        A stop is told to the whole process group. The workers of a data loader would end at once, and their death is an
        error in the process that wants to finish its step; so they leave the group. They end with their parent, and what
        does not is found by the agent all the same.
        """
        handled, mask = self._handles_sigterm, self._masks.get(threading.get_ident())
        fds = [fd for fd in (self._write_fd, self._read_fd) if fd is not None]
        self.__init__()  # type: ignore[misc]
        self._speaker = False
        for fd in fds:
            os.close(fd)
        if handled:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if mask is not None:
            leave_group()
            waiting = signal.sigtimedwait({signal.SIGTERM}, 0) if hasattr(signal, "sigtimedwait") else None
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            # One that was for the group is dropped; one of the parent's is for this child.
            if waiting is not None and waiting.si_pid == os.getppid():
                os.kill(os.getpid(), signal.SIGTERM)


def leave_group() -> None:
    """Puts this process into a process group of its own, where an agent started the program."""
    if inside():
        try:
            os.setpgid(0, 0)
        except OSError:
            pass


def read_json(variable: str) -> Optional[Any]:
    """The JSON file whose path stands in `variable`; None where there is no such variable."""
    path = os.environ.get(variable)
    if not path:
        return None
    try:
        with open(path, "rb") as file:
            text = file.read(JOB_FILE_BYTES + 1)
        if len(text) > JOB_FILE_BYTES:
            raise ValueError("it is longer than %d bytes" % JOB_FILE_BYTES)
        return json.loads(text)
    except (OSError, ValueError) as error:
        raise SpotsweepError(
            "%s names %s, which cannot be read: %s\n"
            "hint: the agent sets it; unset it to run the program by hand" % (variable, path, error)
        ) from error


def command_line() -> List[str]:
    """The program's own arguments."""
    return sys.argv[1:]


link = Link()
if _is_child_of_multiprocessing():
    # Started afresh ("spawn"), it has imported this package itself.
    leave_group()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=link.before_fork, after_in_parent=link.after_fork_in_parent, after_in_child=link.after_fork
    )


def speak_from_here() -> None:
    """Makes this process the one that reports, checkpoints and hears of stops.

    Only for programs whose training runs in a process of `multiprocessing`, for instance rank 0 of
    `torch.multiprocessing.spawn`. The process that it was before must not speak any more.
    """
    link.speak_from_here()
