"""The tally is what CI believes, so its counting is tested.

    python3 -m unittest discover -s .ci
"""

import unittest

from tally import Outcome, count, settle


class Counting(unittest.TestCase):
    def test_cargo_and_python_runners_are_summed(self):
        lines = [
            "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.1s",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s",
            "Ran 9 tests in 0.003s",
            "OK",
            "Ran 5 tests in 0.003s",
            "FAILED (failures=1, errors=1, skipped=1)",
            "OK",
        ]
        self.assertEqual(count(lines), (12 + 1 + 9 + 2, 2 + 2))

    def test_a_target_without_tests_is_one_check(self):
        self.assertEqual(settle("fmt", 0, [], 1.0), Outcome("fmt", 1, 0, 1.0))
        self.assertEqual(settle("fmt", 2, [], 1.0), Outcome("fmt", 0, 1, 1.0))

    def test_a_skipped_target_is_not_one_that_passed(self):
        self.assertEqual(settle("deny", 0, ["skipped: not installed"], 1.0), Outcome("deny", 0, 0, 1.0))

    def test_a_target_that_fails_though_its_tests_pass_has_failed(self):
        passing = ["test result: ok. 4 passed; 0 failed; 0 ignored"]
        self.assertEqual(settle("unit", 101, passing, 1.0), Outcome("unit", 4, 1, 1.0))


if __name__ == "__main__":
    unittest.main()
