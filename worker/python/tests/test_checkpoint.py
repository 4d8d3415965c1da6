"""Checkpoints: whole or not at all, exact, and no more of them than the agent can store."""

import os
import shutil
import signal
import unittest
from pathlib import Path

from .agent import FakeAgent

# A random walk whose every step depends on all before. Reports the value; saves when due.
WALK = """
    import os, random, signal, spotsweep
    spotsweep.should_stop()
    resumed = spotsweep.checkpoint.load()
    if resumed:
        step, (x, generator) = resumed.step, resumed.state
        random.setstate(generator)
    else:
        random.seed(spotsweep.params().seed)
        step, x = 0, 0.0
    while step < 60:
        x = x * 1.01 + random.gauss(0, 1)
        step += 1
        spotsweep.report(step, x=x)
        if step == int(os.environ.get("AT", "0")):
            os.kill(os.getpid(), getattr(signal, "SIG" + os.environ["HOW"]))
        stopping = spotsweep.should_stop()
        if stopping or spotsweep.checkpoint.due() or step % 7 == 0:
            spotsweep.checkpoint.save((x, random.getstate()), step)
        if stopping:
            spotsweep.stopped(step)
            break
    else:
        spotsweep.checkpoint.save((x, random.getstate()), step, last=True)
        spotsweep.done(step, x=x)
"""


class Saves(unittest.TestCase):
    def test_a_state_comes_back_exactly(self) -> None:
        with FakeAgent() as agent:
            make = """
                import random, math
                random.seed(3)
                state = {"t": (1, (2.5, [None, True])), "b": b"\\x00\\xff", 7: {1.5: "x"}, "f": 0.1 + 0.2, "big": 2**200,
                    "nan": float("inf"), "rng": random.getstate(), "__spotsweep__": ["tuple", [1]], "é\\ud800": -0.0}
            """
            status, output = agent.run(make + "\n                import spotsweep; spotsweep.checkpoint.save(state, 12)")
            self.assertEqual(status, 0, output)
            (line,) = agent.of("checkpoint")
            self.assertEqual(line["step"], 12)
            agent.resume = {"step": 12, "dir": line["dir"]}
            status, output = agent.run(
                make
                + """
                import spotsweep
                found = spotsweep.checkpoint.load()
                assert found.step == 12 and found.state == state, found.state
                assert list(found.state) == list(state) and repr(found.state) == repr(state)
                """
            )
            self.assertEqual(status, 0, output)

    def test_what_json_cannot_hold_is_an_error_with_its_place_and_leaves_nothing(self) -> None:
        with FakeAgent() as agent:
            status, output = agent.run(
                """
                import spotsweep
                circular = []; circular.append(circular)
                for wrong in (object(), {"a": [1, {2}]}, {"f": print}, circular):
                    try:
                        spotsweep.checkpoint.save(wrong, 1)
                    except TypeError as error:
                        print(error)
                    else:
                        raise AssertionError(wrong)
                """
            )
            self.assertEqual(status, 0, output)
            self.assertIn("state['a'][1] is a set", output)
            self.assertEqual((agent.lines, os.listdir(agent.checkpoints)), ([], []))

    def test_a_folder_is_copied_unless_it_lies_with_the_checkpoints(self) -> None:
        with FakeAgent() as agent:
            status, output = agent.run(
                """
                import os, spotsweep
                os.makedirs("mine/deep"); open("mine/deep/file", "w").write("1")
                spotsweep.checkpoint.save("mine", 1)
                open("mine/deep/file", "w").write("2")
                there = os.path.join(os.environ["SPOTSWEEP_CHECKPOINTS"], "direct")
                os.mkdir(there)
                spotsweep.checkpoint.save(there, 2, last=True)
                try:
                    spotsweep.checkpoint.save("nowhere", 3)
                except spotsweep.CheckpointError as error:
                    print(error)
                """
            )
            self.assertEqual(status, 0, output)
            self.assertIn("there is no folder nowhere", output)
            first, second = agent.of("checkpoint")
            self.assertEqual(Path(first["dir"], "deep", "file").read_text(), "1")
            self.assertEqual((os.path.basename(second["dir"]), second["last"]), ("direct", True))

    def test_an_error_while_writing_leaves_nothing(self) -> None:
        with FakeAgent() as agent:
            status, output = agent.run(
                """
                import spotsweep.checkpoint
                for error in (OSError(28, "No space left on device"), KeyboardInterrupt()):
                    try:
                        with spotsweep.checkpoint.writing(1) as folder:
                            (folder / "part").write_text("x")
                            raise error
                    except spotsweep.CheckpointError as error:
                        print(error)
                    except KeyboardInterrupt:
                        pass
                """
            )
            self.assertEqual(status, 0, output)
            self.assertIn("behind step 1 cannot be written: [Errno 28] No space left", output)
            self.assertEqual((agent.lines, os.listdir(agent.checkpoints)), ([], []))

    def test_no_more_lie_there_than_the_agent_can_store(self) -> None:
        with FakeAgent() as agent:
            child = agent.start(
                """
                import spotsweep
                for step in range(1, 31):
                    spotsweep.checkpoint.save({"a": 1}, step)
                """
            )
            most = stored = 0
            while stored < 30:
                agent.until(lambda: len(agent.of("checkpoint")) > stored)
                most = max(most, sum(not name.startswith(".") for name in os.listdir(agent.checkpoints)))
                shutil.rmtree(agent.of("checkpoint")[stored]["dir"])
                stored += 1
            self.assertEqual(agent.wait(child)[0], 0)
            self.assertLessEqual(most, 5)

    def test_a_checkpoint_that_cannot_be_read_is_said_to_the_agent(self) -> None:
        for text in (None, "", "{", '{"__spotsweep__":["later",1]}', '{"__spotsweep__":1}', "\udcff"):
            with FakeAgent() as agent:
                folder = agent.root / "resume"
                folder.mkdir()
                if text is not None:
                    (folder / "state.json").write_text(text, errors="surrogateescape")
                agent.resume = {"step": 1, "dir": str(folder)}
                status, _ = agent.run("import spotsweep; spotsweep.checkpoint.load().state")
                self.assertEqual((status, agent.of("failed")[0]["reason"]), (1, "checkpoint"), text)


class Resumes(unittest.TestCase):
    def curve(self, agent: FakeAgent) -> "dict[int, float]":
        curve: "dict[int, float]" = {}
        for line in agent.of("report"):
            # What is told again behind a resume is the same.
            self.assertEqual(curve.setdefault(line["step"], line["metrics"]["x"]), line["metrics"]["x"])
        return curve

    def test_a_program_killed_at_any_moment_ends_as_one_that_was_not(self) -> None:
        with FakeAgent({"seed": 5}) as agent:
            agent.stores = True
            status, output = agent.run(WALK)
            self.assertEqual(status, 0, output)
            expected, done = self.curve(agent), agent.of("done")
            self.assertEqual(len(expected), 60)
        with FakeAgent({"seed": 5}) as agent:
            agent.stores = True
            # Killed behind a step that it may have reached in an earlier attempt, or told to stop there.
            for attempt, (step, how) in enumerate(
                [(3, "KILL"), (5, "TERM"), (8, "KILL"), (20, "TERM"), (27, "KILL"), (59, "TERM")]
            ):
                agent.extra = {"AT": str(step), "HOW": how}
                status, output = agent.run(WALK)
                self.assertEqual(status, -signal.SIGKILL if how == "KILL" else 0, (attempt, output))
                if status == 0:
                    self.assertEqual(agent.lines[-1], {"type": "stopped", "step": step})
            agent.extra = {}
            status, output = agent.run(WALK)
            self.assertEqual(status, 0, output)
            self.assertEqual(self.curve(agent), expected)
            self.assertEqual(agent.of("done")[-1:], done)


if __name__ == "__main__":
    unittest.main()
