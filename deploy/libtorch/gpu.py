#!/usr/bin/env python3
"""Checks on a GPU what a machine without one cannot, and prints the figures as rows for docs/benchmarks.md.

    SPOTSWEEP_PYTHON_TORCH=python3 python3 deploy/libtorch/gpu.py          on cuda:0
    python3 deploy/libtorch/gpu.py --device cpu --debug                    tries itself on a CPU, without NCCL

NCCL at world size 1; two ranks on one GPU, over Gloo; the same bits on 1, 2, 3, 4 and 8 ranks, and of interrupted
TorchScript modules. Owns the order of things: the library for NCCL, then tests that are otherwise left out (`worker/trainer/tests/{gpu,nccl,torchscript}.rs`).
"""

import argparse
import os
import subprocess
import sys
from typing import Dict, List, Mapping, Optional, Tuple

import fetch
import nccl
from errors import FetchError
from index import Pip
from progress import Progress

_REPOSITORY = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, os.pardir))
_ON_THE_DEVICE = ("gpu", None)
_MODULES_ON_THE_DEVICE = ("torchscript", None)
_NCCL_ON_A_GPU = ("nccl", "nccl_at_world_size_1")
_NCCL_WITHOUT_A_GPU = ("nccl", "without_a_gpu")


def prepared(device: str, environment: Mapping[str, str]) -> Tuple[Dict[str, str], List[Tuple[str, Optional[str]]]]:
    """The environment of the tests, and which are run: pairs of a file and a part of names."""
    env = dict(environment, SPOTSWEEP_TEST_DEVICE=device)
    # What an agent gives its trainers.
    env.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    env.setdefault("OMP_WAIT_POLICY", "passive")
    tests = [_ON_THE_DEVICE, _MODULES_ON_THE_DEVICE]
    torch = fetch.libtorch_folder(environment, Pip(), Progress(sys.stderr))
    if device != "cpu" or os.path.exists(os.path.join(torch, "lib", "libtorch_cuda.so")):
        into = os.path.join(_REPOSITORY, environment.get("CARGO_TARGET_DIR", "target"), "nccl")
        env["SPOTSWEEP_NCCL_LIBRARY"] = nccl.build(into, environment)
        tests.append(_NCCL_WITHOUT_A_GPU if device == "cpu" else _NCCL_ON_A_GPU)
    env["LIBTORCH"] = torch
    env["LD_LIBRARY_PATH"] = ":".join([os.path.join(torch, "lib"), *filter(None, [environment.get("LD_LIBRARY_PATH")])])
    return env, tests


def run(test: Tuple[str, Optional[str]], env: Mapping[str, str], profile: List[str]) -> Tuple[bool, List[str]]:
    """Runs tests that are otherwise left out. Gives whether they passed, and the rows that they printed."""
    file, names = test
    call = [env.get("CARGO", "cargo"), "test", *profile, "--locked", "-p", "spotsweep-trainer", "--test", file]
    call += ["--", "--ignored", "--nocapture", "--test-threads", "1", *([names] if names else [])]
    rows, ran = [], 0
    with subprocess.Popen(call, cwd=_REPOSITORY, env=dict(env), stdout=subprocess.PIPE, text=True) as tests:
        for line in tests.stdout or ():
            sys.stderr.write(line)
            # The name of a test stands before the first of its lines.
            if " | " in line:
                rows.append(line[line.index("| ") :].rstrip())
            if line.startswith("running ") and line.split()[1].isdigit():
                ran += int(line.split()[1])
    return tests.returncode == 0 and ran > 0, rows


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description="Checks exchanges between ranks on a GPU and prints figures.")
    parser.add_argument("--device", default="cuda:0", help="cuda:0, …, or cpu (default: cuda:0)")
    parser.add_argument("--debug", action="store_true", help="without optimisation: quicker to build, no figures to keep")
    options = parser.parse_args(arguments)
    try:
        env, tests = prepared(options.device, os.environ)
    except (FetchError, OSError) as error:
        print("error: %s\nhint: %s" % (error, getattr(error, "hint", "check the disk")), file=sys.stderr)
        return 1
    outcomes = [(test, *run(test, env, [] if options.debug else ["--release"])) for test in tests]
    print("| %s | |\n| --- | --- |" % options.device)
    for _, _, rows in outcomes:
        print("\n".join(rows) or "| nothing measured | |")
    failed = [" ".join(filter(None, test)) for test, passed, _ in outcomes if not passed]
    for test in failed:
        print("failed: %s" % test, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
