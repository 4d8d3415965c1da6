"""What is fetched, to the byte.

Owns the list of wheels that the CPU part of libtorch 2.11.0 comes from, which of their members are
wanted, and the hashes that say they are the right ones. It must not do IO.

Each wheel carries a RECORD: a table of its members with a SHA-256 for each. The RECORD's own hash is
pinned here, so a member is right if, and only if, it is the one that was looked at when this file was
written, whatever server it came from.
"""

from dataclasses import dataclass
from typing import Tuple

LIBTORCH_VERSION = "2.11.0"

# The folder in the user's cache; a new version gets a new folder.
CACHE_NAME = "libtorch-" + LIBTORCH_VERSION + "-cpu"

# The wheels of one torch version carry the same libraries for every Python version, so one is pinned and
# the user's Python version does not matter.
PYTHON_VERSION = "3.12"
PLATFORMS = (
    "manylinux_2_28_x86_64",
    "manylinux_2_25_x86_64",
    "manylinux_2_17_x86_64",
    "manylinux2014_x86_64",
)

# What the folder takes on disk (504 MB measured) with room for whole blocks, in bytes.
NEEDED_DISK_BYTES = 700 * 1000 * 1000


@dataclass(frozen=True)
class Wheel:
    """One wheel and the part of it that is wanted."""

    project: str
    version: str
    filename: str
    record: str
    """Path of RECORD inside the wheel."""
    record_sha256: str
    """Hex."""
    wanted: Tuple[str, ...]
    """Members by path; a path that ends in `/` stands for all below it."""

    def wants(self, path: str) -> bool:
        """Whether the member at `path` is to be fetched."""
        return any(path.startswith(w) if w.endswith("/") else path == w for w in self.wanted)


WHEELS = (
    Wheel(
        project="torch",
        version="2.11.0",
        filename="torch-2.11.0-cp312-cp312-manylinux_2_28_x86_64.whl",
        record="torch-2.11.0.dist-info/RECORD",
        record_sha256="64d76220aff1572ba2ee949e3c4e5633a21f7aa626c634ee1730609464777fc5",
        wanted=(
            "torch/include/",
            "torch/lib/libc10.so",
            "torch/lib/libgomp.so.1",
            "torch/lib/libtorch_cpu.so",
            "torch-2.11.0.dist-info/licenses/",
        ),
    ),
    Wheel(
        project="nvidia-cuda-runtime",
        version="13.0.96",
        filename="nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        record="nvidia_cuda_runtime-13.0.96.dist-info/RECORD",
        record_sha256="34c7a65651597fd8a376b049b69bb26db399a9ea443a7a142ccd34f5a10f79c4",
        wanted=(
            "nvidia/cu13/lib/libcudart.so.13",
            "nvidia_cuda_runtime-13.0.96.dist-info/licenses/",
        ),
    ),
    Wheel(
        project="nvidia-cuda-cupti",
        version="13.0.85",
        filename="nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl",
        record="nvidia_cuda_cupti-13.0.85.dist-info/RECORD",
        record_sha256="f8ae8ddce85f8e319abac90e956bf45a572e31f4ff01af2d634f37aa3d78e3eb",
        wanted=(
            "nvidia/cu13/lib/libcupti.so.13",
            "nvidia_cuda_cupti-13.0.85.dist-info/licenses/",
        ),
    ),
)
