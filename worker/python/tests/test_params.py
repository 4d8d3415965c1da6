"""Parameters: the agent's, or the flags'."""

import unittest
from pathlib import Path

from .agent import FakeAgent, run_alone

READ = "import spotsweep as s; p = s.params(lr=0.1, steps=3, name='x', deep={'a': 1, 'b': 2.0}, on=False); print(dict(p))"


class FromTheAgent(unittest.TestCase):
    def test_they_go_over_the_defaults_and_flags_do_not_count(self) -> None:
        with FakeAgent({"lr": 1, "deep": {"b": 3}, "optimizer": {"name": "sgd"}, "s": "1"}) as agent:
            status, output = agent.run(
                """
                import spotsweep, sys
                sys.argv += ["--lr=9"]
                p = spotsweep.params(lr=0.1, steps=3, deep={"a": 1, "b": 2.0})
                assert p == {"lr": 1.0, "steps": 3, "deep": {"a": 1, "b": 3.0}, "optimizer": {"name": "sgd"}, "s": "1"}, p
                assert type(p.lr) is float and type(p.deep.b) is float and p.optimizer.name == "sgd"
                assert spotsweep.trial() == "s/3"
                import copy, pickle
                assert copy.deepcopy(p) == p and pickle.loads(pickle.dumps(p)).optimizer.name == "sgd"
                try:
                    p.learning_rate
                except AttributeError as error:
                    assert "there is no parameter 'learning_rate'; there are: deep, lr" in str(error), error
                """
            )
            self.assertEqual(status, 0, output)

    def test_a_file_that_cannot_be_read_is_an_error_that_names_it(self) -> None:
        for text in ("", "{", "[1]", "\x00"):
            with FakeAgent() as agent:
                environment = agent.environment()
                Path(environment["SPOTSWEEP_PARAMS"]).write_text(text)
                status, output = agent.run("import spotsweep; spotsweep.params()", environment)
                self.assertEqual(status, 1)
                self.assertIn("SPOTSWEEP_PARAMS", output)


class FromFlags(unittest.TestCase):
    def check(self, expected: str, *arguments: str) -> None:
        result = run_alone(READ, *arguments)
        self.assertEqual(result.stdout.strip(), expected, result.stderr)

    def test_they_go_over_the_defaults_in_their_types(self) -> None:
        self.check("{'lr': 0.1, 'steps': 3, 'name': 'x', 'deep': {'a': 1, 'b': 2.0}, 'on': False}")
        self.check(
            "{'lr': 1.0, 'steps': 5, 'name': '7', 'deep': {'a': 2, 'b': 4.0}, 'on': True, 'new': [1], 'py': {'n': 'sgd', 'm': [None, 'a']}, 't': 'sgd', 'q': \"'x'\"}",
            "--lr=1", "--steps=5", "--name=7", '--deep={"a": 2}', "--deep.b=4", "--on=True", "--new=[1]", "--py={'n': 'sgd', 'm': [None, 'a']}", "--t=sgd", "--q='x'", "--verbose", "x", "--", "--lr=3",
        )  # fmt: skip

    def test_a_value_of_another_type_than_its_default_is_an_error(self) -> None:
        for flag in ("--steps=many", "--lr=x", "--deep=3", "--on=7"):
            result = run_alone(READ, flag)
            self.assertEqual(result.returncode, 1, flag)
            self.assertIn("%s is no" % flag, result.stderr)

if __name__ == "__main__":
    unittest.main()
