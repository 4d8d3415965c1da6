#!/usr/bin/env python3
"""Puts the CPU part of libtorch into the user's cache, or finds the libtorch that the user has.

    python3 deploy/libtorch/fetch.py --print    prints the folder for LIBTORCH, fetching it first if need be

Owns the order of things: what the user points at, the cache, the fetch into a folder beside it, the rename.
A folder in the cache is whole or not there. Needs Python 3.9 with pip and gcc, nothing else.
"""

import argparse
import contextlib
import fcntl
import os
import platform
import shutil
import signal
import subprocess
import sys
from typing import Iterator, List, Mapping, Optional, Sequence

import existing
import wheel as wheels
from errors import OWN_LIBTORCH_HINT, FetchError, NotInParts
from index import Pip
from pins import CACHE_NAME, LIBTORCH_VERSION, NEEDED_DISK_BYTES, WHEELS, Wheel
from progress import Progress
from source import FileSource


def cache_root(environment: Mapping[str, str]) -> str:
    """The folder in which Spotsweep keeps what it fetched. The XDG rules: a relative path does not count."""
    base = environment.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "spotsweep")


def is_whole(folder: str, pins: Sequence[Wheel] = WHEELS) -> bool:
    """Whether a folder that was put here earlier still has every file at its full size."""
    for wheel in pins:
        try:
            with open(os.path.join(folder, wheel.record), "rb") as file:
                rows = wheels.parse_record(file.read())
            for path, (_, size) in rows.items():
                if wheel.wants(path) and os.path.getsize(os.path.join(folder, path)) != size:
                    return False
        except (OSError, ValueError):
            return False
    return os.path.exists(os.path.join(folder, "torch/lib/libtorch.so"))


def fetch(folder: str, pip: Pip, progress: Progress, pins: Sequence[Wheel] = WHEELS) -> None:
    """Makes `folder` hold the wanted members of the pinned wheels. Does nothing where it does already."""
    parent = os.path.dirname(folder)
    os.makedirs(parent, exist_ok=True)
    with _only_one(folder + ".lock", progress):
        if is_whole(folder, pins):
            return
        compiler = _compiler(os.environ)
        _check_disk(parent)
        # Under the lock nobody else uses this name, so what is there is left from a killed run.
        partial = folder + ".partial"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            os.mkdir(partial)
            for wheel in pins:
                _fetch_wheel(wheel, pip, partial, progress)
            _finish(partial, compiler)
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    progress.say("libtorch %s is in %s" % (LIBTORCH_VERSION, folder))


def _fetch_wheel(wheel: Wheel, pip: Pip, into: str, progress: Progress) -> None:
    try:
        url = pip.locate(wheel)
        if url is None:
            raise NotInParts("pip does not tell where it is")
        _take(wheel, pip.open(url), into, progress)
    except NotInParts as why:
        progress.say("%s cannot be read in parts (%s): pip downloads all of it" % (wheel.filename, why))
        whole = os.path.join(into, ".whole")
        os.mkdir(whole)
        _take(wheel, FileSource(pip.download(wheel, whole)), into, progress)
        shutil.rmtree(whole)


def _take(wheel: Wheel, source, into: str, progress: Progress) -> None:
    members = wheels.directory(wheel, source)
    text, rows = wheels.record(wheel, source, members)
    chosen = wheels.plan(wheel, members, rows)
    with progress.part(wheel.project + " " + wheel.version, sum(m.packed_bytes for m in chosen)) as advance:
        wheels.extract(wheel, source, chosen, rows, into, advance)
    # RECORD stays beside what it vouches for: `is_whole` reads it.
    kept = os.path.join(into, wheel.record)
    os.makedirs(os.path.dirname(kept), exist_ok=True)
    with open(kept, "wb") as file:
        file.write(text)


def _finish(folder: str, compiler: List[str]) -> None:
    """What the wheels lack for linking without CUDA."""
    torch = os.path.join(folder, "torch")
    # The build names libtorch.so, but the real one needs libtorch_cuda.so. All that it stands for is in
    # libtorch_cpu.so, which the build names too, so an empty library of that name will do.
    library = os.path.join(torch, "lib", "libtorch.so")
    made = subprocess.run(
        [*compiler, "-shared", "-nostdlib", "-Wl,-soname,libtorch.so", "-o", library, "-x", "c", os.devnull],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        raise FetchError("%s cannot make a shared library: %s" % (compiler[0], made.stderr.strip()), "check CC; on Debian: apt-get install gcc libc6-dev")
    # torch-sys compares this with the version that it was made for.
    with open(os.path.join(torch, "build-version"), "w", encoding="utf-8") as file:
        file.write(LIBTORCH_VERSION + "\n")
    # One flush for ten thousand files: the rename must not outlive their contents in a power cut.
    os.sync()


def _compiler(environment: Mapping[str, str]) -> List[str]:
    command = environment.get("CC", "gcc").split() or ["gcc"]
    if shutil.which(command[0]) is None:
        raise FetchError("there is no %s" % command[0], "install a C and C++ compiler (Debian: apt-get install gcc g++ make)")
    return command


def _check_disk(parent: str) -> None:
    free = shutil.disk_usage(parent).free
    if free < NEEDED_DISK_BYTES:
        raise FetchError(
            "%s has %d MB free, and libtorch takes up to %d MB" % (parent, free // 10**6, NEEDED_DISK_BYTES // 10**6),
            "make room, or set XDG_CACHE_HOME to a folder on another disk",
        )


@contextlib.contextmanager
def _only_one(path: str, progress: Progress) -> Iterator[None]:
    """Holds the lock at `path`; the system drops it when this process ends, however it ends."""
    with open(path, "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.say("another fetch is at work: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def libtorch_folder(environment: Mapping[str, str], pip: Pip, progress: Progress) -> str:
    """The folder for LIBTORCH: the user's own, else the cached one, fetched if need be."""
    own = existing.chosen(environment)
    if own is not None:
        return own
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise FetchError(
            "libtorch is fetched for Linux on x86_64 only, and this is %s on %s" % (platform.system(), platform.machine()),
            OWN_LIBTORCH_HINT,
        )
    folder = os.path.join(cache_root(environment), CACHE_NAME)
    if not is_whole(folder):
        fetch(folder, pip, progress)
    return os.path.join(folder, "torch")


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description="Fetches the CPU part of libtorch %s into the user's cache." % LIBTORCH_VERSION)
    parser.add_argument("--print", action="store_true", help="print the folder for LIBTORCH")
    options = parser.parse_args(arguments)
    # As an exception, so that a half-fetched folder is removed on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    progress = Progress(sys.stderr)
    try:
        folder = libtorch_folder(os.environ, Pip(), progress)
    except FetchError as error:
        print("error: %s\nhint: %s" % (error.message, error.hint), file=sys.stderr)
        return 1
    except OSError as error:
        print("error: %s\nhint: check the disk and the rights of %s" % (error, cache_root(os.environ)), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing half-fetched was left", file=sys.stderr)
        return 128 + signal.SIGINT
    if options.print:
        print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
