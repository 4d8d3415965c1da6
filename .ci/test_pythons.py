import os
import stat
import sys
import tempfile
import unittest
from unittest import mock

import pythons


def script(folder, name, text):
    path = os.path.join(folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write("#!/bin/sh\n" + text)
    os.chmod(path, stat.S_IRWXU)
    return path


class Pythons(unittest.TestCase):
    def test_a_stand_in_that_does_not_start_is_passed_over_for_one_of_pyenv(self):
        absent = [version for version in pythons.VERSIONS if version != sys.version_info[:2]]
        with tempfile.TemporaryDirectory() as folder:
            (broken, whole), rest = absent[:2], absent[2:]
            script(folder, "bin/python%d.%d" % broken, "exit 127\n")
            script(folder, "bin/python%d.%d" % whole, "echo %d %d\n" % whole)
            real = script(folder, "versions/%d.%d.1/bin/python" % broken, "echo %d %d\n" % broken)
            with mock.patch.dict(os.environ, {"PATH": os.path.join(folder, "bin"), "PYENV_ROOT": folder}):
                found, missing = pythons.find()
        self.assertEqual(found, [sys.executable, real, os.path.join(folder, "bin", "python%d.%d" % whole)])
        self.assertEqual(missing, ["%d.%d" % version for version in rest])


if __name__ == "__main__":
    unittest.main()
