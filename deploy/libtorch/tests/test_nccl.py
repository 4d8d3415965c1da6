"""What the library for NCCL is built from, and how its build is refused. Needs neither CUDA nor a compiler."""

import os
import tempfile
import unittest

import fake  # First, for it makes the modules under test importable.  # noqa: F401

import nccl
from errors import FetchError
from pins import LIBTORCH_VERSION


def touch(base, *paths):
    for path in paths:
        os.makedirs(os.path.dirname(os.path.join(base, path)), exist_ok=True)
        with open(os.path.join(base, path), "w", encoding="utf-8"):
            pass


def torch_without_cuda(base):
    torch = os.path.join(base, "torch")
    touch(torch, "include/torch/csrc/api/include/torch/torch.h", "lib/libc10.so", "lib/libtorch.so", "lib/libtorch_cpu.so")
    header = os.path.join(torch, "include/torch/headeronly/version.h")
    os.makedirs(os.path.dirname(header))
    with open(header, "w", encoding="utf-8") as file:
        for part, number in zip(("MAJOR", "MINOR", "PATCH"), LIBTORCH_VERSION.split(".")):
            file.write("#define TORCH_VERSION_%s %s\n" % (part, number))
    return torch


class TheLibraryForNccl(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.base = os.path.realpath(folder.name)

    def test_without_a_libtorch_with_cuda_the_build_says_how_to_name_one(self):
        with self.assertRaises(FetchError) as refused:
            nccl.cuda_torch({})
        self.assertIn("SPOTSWEEP_PYTHON_TORCH", refused.exception.hint)
        with self.assertRaises(FetchError) as refused:
            nccl.cuda_torch({"LIBTORCH": torch_without_cuda(self.base)})
        self.assertIn("without CUDA: it lacks lib/libtorch_cuda.so", refused.exception.message)

    def test_headers_beside_torch_are_found_and_missing_ones_named_with_their_package(self):
        torch = torch_without_cuda(self.base)
        for header in nccl._HEADERS:
            below = "cccl/" + header if header.startswith("nv/") else header
            touch(self.base, os.path.join("nvidia/nccl" if header == "nccl.h" else "nvidia/cu13", "include", below))
        found = nccl.include_folders(torch, {})
        for folder in ("nvidia/cu13/include", "nvidia/cu13/include/cccl", "nvidia/nccl/include"):
            self.assertIn(os.path.join(self.base, folder), found)
        os.remove(os.path.join(self.base, "nvidia/cu13/include/cublas_v2.h"))
        if not os.path.exists("/usr/local/cuda/include/cublas_v2.h") and not os.path.exists("/usr/include/cublas_v2.h"):
            with self.assertRaises(FetchError) as refused:
                nccl.include_folders(torch, {})
            self.assertIn("cublas_v2.h", refused.exception.message)
            self.assertIn("nvidia-cublas", refused.exception.hint)

    def test_a_build_that_fails_shows_the_compiler_and_leaves_nothing(self):
        torch = torch_without_cuda(self.base)
        touch(torch, "lib/libtorch_cuda.so", "lib/libc10_cuda.so", nccl._BACKEND)
        for header in nccl._HEADERS:
            touch(self.base, os.path.join("nvidia/all/include", header))
        compiler = os.path.join(self.base, "compiler")
        with open(compiler, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\necho 'it is no C++' >&2\nexit 1\n")
        os.chmod(compiler, 0o755)
        into = os.path.join(self.base, "into")
        with self.assertRaises(FetchError) as refused:
            nccl.build(into, {"LIBTORCH": torch, "CXX": compiler})
        self.assertIn("it is no C++", refused.exception.message)
        self.assertEqual(os.listdir(into), [])


if __name__ == "__main__":
    unittest.main()
