"""Prints a Python of each version that the package of worker/python is for, as far as they are on this machine: in PATH or with pyenv.

The first is the one that runs this. Versions that are not here are not tested; that is said on stderr.
"""

import glob
import os
import shutil
import subprocess
import sys

# As `requires-python` in worker/python/pyproject.toml says, and what is out.
VERSIONS = [(3, minor) for minor in range(9, 14)]


def starts(path, version):
    """Whether it is a Python of that version. One of pyenv's stand-ins may be none."""
    try:
        asked = [path, "-c", "import sys; print(*sys.version_info[:2])"]
        told = subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return told.stdout.split() == [str(part) for part in version]


def candidates(version):
    name = "python%d.%d" % version
    found = shutil.which(name)
    if found:
        yield found
    pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    yield from sorted(glob.glob(os.path.join(glob.escape(pyenv), "versions", "%d.%d.*" % version, "bin", "python")))


def find():
    """A Python for each version that is here, this one first; and the versions that are not."""
    found, absent = [sys.executable], []
    for version in VERSIONS:
        if version == sys.version_info[:2]:
            continue
        path = next((path for path in candidates(version) if starts(path, version)), None)
        if path is None:
            absent.append("%d.%d" % version)
        else:
            found.append(path)
    return found, absent


if __name__ == "__main__":
    pythons, missing = find()
    if missing:
        print("not tested: no Python %s on this machine" % ", ".join(missing), file=sys.stderr)
    print("\n".join(pythons))
