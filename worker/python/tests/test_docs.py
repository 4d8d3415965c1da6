"""What people start from does what it says: the programs of the documentation, and the example."""

import re
import unittest
from pathlib import Path

from .agent import FakeAgent, run_alone

ROOT = Path(__file__).resolve().parents[3]


def programs(path: Path) -> "list[str]":
    return [block for block in re.findall(r"```python\n(.*?)```", path.read_text("utf-8"), re.S) if "…" not in block]


class Documented(unittest.TestCase):
    def test_the_loops_of_the_documentation_run_alone_and_go_on_where_they_were(self) -> None:
        loops = [
            program
            for path in (ROOT / "docs" / "own-models.md", ROOT / "worker" / "python" / "README.md")
            for program in programs(path)
            if "spotsweep.params(" in program
        ]
        self.assertEqual(len(loops), 2)
        for loop in loops:
            alone = run_alone(loop, "--steps=3")
            self.assertEqual((alone.returncode, alone.stdout.splitlines()[-1]), (0, "done at step 3"), alone.stderr)
            self.goes_on_where_it_was(loop, {"steps": 100})

    def test_the_example_goes_on_where_it_was(self) -> None:
        self.goes_on_where_it_was((ROOT / "examples" / "own-python" / "train.py").read_text(), {"steps": 500})

    def goes_on_where_it_was(self, program: str, params: "dict[str, object]") -> None:
        with FakeAgent(params) as agent:
            agent.stores = True
            status, output = agent.run(program)
            self.assertEqual(status, 0, output)
            expected = agent.lines[:]
            self.assertEqual([line["type"] for line in expected][-2:], ["checkpoint", "done"])
            final = (Path(expected[-2]["dir"]) / "state.json").read_bytes()
        with FakeAgent(params) as agent:
            agent.stores = True
            # The first attempt ends after one step, the second goes on to the end.
            agent.stop_file.touch()
            status, output = agent.run(program)
            self.assertEqual((status, agent.lines[-1]), (0, {"type": "stopped", "step": 1}), output)
            agent.stop_file.unlink()
            status, output = agent.run(program)
            self.assertEqual(status, 0, output)
            self.assertEqual(agent.of("report"), [line for line in expected if line["type"] == "report"])
            last = agent.of("checkpoint")[-1]
            self.assertTrue(last["last"])
            self.assertEqual((Path(last["dir"]) / "state.json").read_bytes(), final)


if __name__ == "__main__":
    unittest.main()
