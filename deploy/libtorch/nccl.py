#!/usr/bin/env python3
"""Builds libspotsweep_nccl.so, with which trainers on GPUs exchange over NCCL instead of Gloo.

    SPOTSWEEP_PYTHON_TORCH=python3 python3 deploy/libtorch/nccl.py --into target/release

Owns the search for a libtorch with CUDA and for the headers of CUDA and NCCL, and the one call of the compiler. It
must not fetch anything. Neither nvcc nor a GPU is needed.
"""

import argparse
import glob
import os
import shutil
import subprocess
import sys
from typing import List, Mapping, Optional

import existing
from errors import FetchError

LIBRARY = "libspotsweep_nccl.so"
_SOURCE = os.path.join(
    os.path.dirname(os.path.abspath(__file__)), os.pardir, os.pardir, "worker", "trainer", "shim", "cpp", "nccl", "nccl.cpp"
)
_BACKEND = "include/torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp"
# Each stands for a set of headers, and each for the package of wheels that has them (CUDA 13's; CUDA 12's end in -cu12).
_HEADERS = {
    "cuda_runtime_api.h": "nvidia-cuda-runtime",
    "crt/host_defines.h": "nvidia-cuda-crt",
    "nv/target": "nvidia-cuda-cccl",
    "cublas_v2.h": "nvidia-cublas",
    "cusparse.h": "nvidia-cusparse",
    "cusolverDn.h": "nvidia-cusolver",
    "nccl.h": "nvidia-nccl-cu13",
}


def cuda_torch(environment: Mapping[str, str]) -> str:
    """The folder of a libtorch with CUDA that the user points at."""
    torch = existing.chosen(environment)
    hint = "`pip install torch==%s` has one: set SPOTSWEEP_PYTHON_TORCH=python3, or LIBTORCH to its folder" % existing.LIBTORCH_VERSION
    if torch is None:
        raise FetchError("NCCL needs a libtorch with CUDA, and neither LIBTORCH nor SPOTSWEEP_PYTHON_TORCH names one", hint)
    for path in ("lib/libtorch_cuda.so", "lib/libc10_cuda.so", _BACKEND):
        if not os.path.exists(os.path.join(torch, path)):
            raise FetchError("the libtorch in %s is one without CUDA: it lacks %s" % (torch, path), hint)
    return torch


def include_folders(torch: str, environment: Mapping[str, str]) -> List[str]:
    """Where the headers of CUDA and NCCL are: named ones first, then those of wheels beside torch, then the system's."""
    bases = [environment[name] for name in ("NCCL_HOME", "CUDA_HOME", "CUDA_PATH") if environment.get(name)]
    bases += sorted(glob.glob(os.path.join(os.path.dirname(torch), "nvidia", "*")))
    bases += ["/usr/local/cuda", "/usr"]
    folders = []
    for base in bases:
        folders += [folder for folder in (os.path.join(base, "include"), os.path.join(base, "include", "cccl")) if os.path.isdir(folder)]
    missing = [header for header in _HEADERS if not any(os.path.exists(os.path.join(folder, header)) for folder in folders)]
    if missing:
        raise FetchError(
            "these headers of CUDA and NCCL are nowhere: %s" % ", ".join(missing),
            "set CUDA_HOME and NCCL_HOME, or `pip install %s` of torch's CUDA version beside torch"
            % " ".join(_HEADERS[header] for header in missing),
        )
    # The compiler knows that one, and is confused when told.
    return [folder for folder in folders if folder != "/usr/include"]


def command(compiler: List[str], torch: str, includes: List[str], output: str, abi: str) -> List[str]:
    """The call of the compiler."""
    folders = [os.path.join(torch, "include"), os.path.join(torch, "include/torch/csrc/api/include"), *includes]
    return [
        *compiler, "-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror",
        "-D_GLIBCXX_USE_CXX11_ABI=%s" % abi, "-DUSE_DISTRIBUTED", "-DUSE_C10D_NCCL",
        # As system headers: theirs are not our warnings.
        *[argument for folder in folders for argument in ("-isystem", folder)],
        os.path.normpath(_SOURCE), "-o", output,
        # No rpath: by the time that it is loaded, the trainer has loaded these. A symbol that none of them has is an error.
        "-L" + os.path.join(torch, "lib"), "-Wl,--no-as-needed", "-ltorch_cuda", "-lc10_cuda", "-ltorch_cpu", "-lc10",
        "-Wl,-z,defs", "-Wl,--unresolved-symbols=ignore-in-shared-libs",
    ]  # fmt: skip


def build(into: str, environment: Mapping[str, str]) -> str:
    """Builds the library into the folder `into`; it appears there whole or not at all."""
    torch = cuda_torch(environment)
    includes = include_folders(torch, environment)
    compiler = environment.get("CXX", "g++").split() or ["g++"]
    if shutil.which(compiler[0]) is None:
        raise FetchError("there is no %s" % compiler[0], "install a C++ compiler (Debian: apt-get install g++)")
    os.makedirs(into, exist_ok=True)
    output = os.path.join(into, LIBRARY)
    partial = "%s.%d" % (output, os.getpid())
    try:
        call = command(compiler, torch, includes, partial, environment.get("LIBTORCH_CXX11_ABI", "1"))
        made = subprocess.run(call, capture_output=True, text=True, check=False)
        if made.returncode != 0:
            raise FetchError("%s fails:\n%s" % (compiler[0], made.stderr.strip()), "headers of another CUDA than torch's? set CUDA_HOME and NCCL_HOME")
        os.replace(partial, output)
    finally:
        if os.path.exists(partial):
            os.remove(partial)
    return output


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description="Builds %s against a libtorch with CUDA." % LIBRARY)
    parser.add_argument("--into", required=True, metavar="DIR", help="folder of the library: the one of spotsweep-trainer")
    options = parser.parse_args(arguments)
    try:
        print(build(options.into, os.environ))
    except (FetchError, OSError) as error:
        hint = getattr(error, "hint", "check the disk and the rights of %s" % options.into)
        print("error: %s\nhint: %s" % (error, hint), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
