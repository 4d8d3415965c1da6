"""What a program says, what it asks, and in which process."""

import os
import signal
import unittest

from .agent import FakeAgent, run_alone


class Reports(unittest.TestCase):
    def test_every_kind_of_number_is_reported_and_nothing_else_is(self) -> None:
        with FakeAgent() as agent:
            status, output = agent.run(
                """
                import decimal, fractions, spotsweep
                spotsweep.report(1, {"val/loss": 0.5, "é": 2}, yes=True, half=fractions.Fraction(1, 2),
                    tenth=decimal.Decimal("0.1"), big=2**70)
                spotsweep.report(2, text="0.5", nested={"a": 1}, listed=[1], nothing=None, raw=b"1", self=object(), ok=1)
                spotsweep.report(3, a=float("nan"), b=float("inf"), c=-float("inf"), d=10**400, e=0.0)
                """
            )
            self.assertEqual(status, 0, output)
            first, second, third = (line["metrics"] for line in agent.of("report"))
            self.assertEqual(
                first, {"val/loss": 0.5, "é": 2, "yes": 1, "half": 0.5, "tenth": 0.1, "big": float(2**70)}
            )
            self.assertEqual(second, {"ok": 1})
            self.assertEqual(third, {"a": "NaN", "b": "Infinity", "c": "-Infinity", "d": "Infinity", "e": 0.0})
            for name in ("text", "nested", "listed", "nothing", "raw", "self"):
                self.assertIn("metric '%s' is left out" % name, output)

    def test_floats_arrive_to_the_bit(self) -> None:
        with FakeAgent() as agent:
            agent.run(
                """
                import random, spotsweep
                random.seed(1)
                for step in range(1, 200):
                    spotsweep.report(step, x=random.uniform(-1, 1) * 10.0 ** random.randint(-300, 300))
                """
            )
            import random

            random.seed(1)
            expected = [random.uniform(-1, 1) * 10.0 ** random.randint(-300, 300) for _ in range(1, 200)]
            self.assertEqual([line["metrics"]["x"] for line in agent.of("report")], expected)

    def test_a_warning_is_given_once_for_each_name(self) -> None:
        with FakeAgent() as agent:
            _, output = agent.run(
                """
                import spotsweep, warnings
                warnings.simplefilter("always")
                for step in range(100):
                    spotsweep.report(step, text="x", loss=1)
                """
            )
            self.assertEqual(output.count("metric 'text' is left out"), 1, output)
            self.assertEqual(len(agent.of("report")), 100)

    def test_a_step_that_does_not_grow_is_left_out_and_one_that_is_no_number_is_an_error(self) -> None:
        with FakeAgent() as agent:
            status, output = agent.run(
                """
                import spotsweep
                for step in (0, 1, 1, 0, 5.0, 7):
                    spotsweep.report(step, loss=1)
                for wrong in ("3", 1.5, None, True, -1, 10**13, float("nan"), float("inf")):
                    try:
                        spotsweep.report(wrong, loss=1)
                    except (TypeError, ValueError) as error:
                        assert str(error).startswith("step is"), error
                    else:
                        raise AssertionError(wrong)
                """
            )
            self.assertEqual(status, 0, output)
            self.assertEqual([line["step"] for line in agent.of("report")], [0, 1, 5, 7])
            self.assertIn("step 1 was reported before", output)

    def test_names_and_numbers_of_metrics_are_bounded(self) -> None:
        with FakeAgent() as agent:
            status, output = agent.run(
                r"""
                import spotsweep
                spotsweep.report(1, {"n%d" % n: n for n in range(100_000)})
                spotsweep.report(2, {"x" * 129: 1, "": 1, "a\x1b[2J": 1, "new\nline": 1, 3: 1, "\ud800": 1, "y" * 128: 1})
                """
            )
            self.assertEqual(status, 0, output)
            first, second = (line["metrics"] for line in agent.of("report"))
            self.assertEqual(len(first), 256)
            self.assertEqual(second, {"y" * 128: 1})
            self.assertNotIn("\x1b", output)

    def test_threads_do_not_mix_their_lines(self) -> None:
        with FakeAgent() as agent:
            status, output = agent.run(
                """
                import spotsweep, spotsweep._link, threading
                def say(thread):
                    for number in range(50):
                        spotsweep._link.link.send({"type": "test", "thread": thread, "number": number, "fill": "x" * 9000})
                threads = [threading.Thread(target=say, args=(n,)) for n in range(4)]
                [t.start() for t in threads]; [t.join() for t in threads]
                """
            )
            self.assertEqual(status, 0, output)
            for thread in range(4):
                numbers = [line["number"] for line in agent.of("test") if line["thread"] == thread]
                self.assertEqual(numbers, list(range(50)))

    def test_a_signal_handler_may_report_in_the_middle_of_a_report(self) -> None:
        with FakeAgent() as agent:
            status, output = agent.run(
                """
                import itertools, signal, spotsweep, spotsweep._link
                def say(*_):
                    spotsweep._link.link.send({"type": "test", "from": "handler", "fill": "x" * 9000})
                signal.signal(signal.SIGALRM, say)
                signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
                for _ in range(500):
                    spotsweep._link.link.send({"type": "test", "from": "loop", "fill": "x" * 9000})
                signal.setitimer(signal.ITIMER_REAL, 0)
                """
            )
            self.assertEqual(status, 0, output)
            self.assertEqual(sum(line["from"] == "loop" for line in agent.of("test")), 500)

    def test_the_end_is_said_in_each_of_three_ways(self) -> None:
        with FakeAgent() as agent:
            agent.run("import spotsweep; spotsweep.done(7, accuracy=0.9, note='x')")
            agent.run("import spotsweep; spotsweep.stopped(5)")
            status, output = agent.run("import spotsweep; spotsweep.fail('no data ' + 'x' * 9000, reason='data')")
            self.assertEqual(status, 1)
            self.assertEqual(agent.lines[0], {"type": "done", "step": 7, "metrics": {"accuracy": 0.9}})
            self.assertEqual(agent.lines[1], {"type": "stopped", "step": 5})
            self.assertEqual(agent.lines[2]["reason"], "data")
            self.assertEqual(len(agent.lines[2]["message"]), 4096)
            status, output = agent.run("import spotsweep; spotsweep.fail('x', reason='bad luck')")
            self.assertIn("it is one of internal, config", output)


class Stops(unittest.TestCase):
    LOOP = """
        import spotsweep
        spotsweep.report(1, loss=1)
        while not spotsweep.should_stop():
            pass
        print("due", spotsweep.checkpoint.due())
        spotsweep.stopped(1)
    """

    def check(self, tell, due: bool) -> None:  # type: ignore[no-untyped-def]
        with FakeAgent() as agent:
            child = agent.start(self.LOOP)
            agent.until(lambda: bool(agent.of("report")))
            tell(agent, child)
            status, output = agent.wait(child)
            self.assertEqual(status, 0, output)
            self.assertEqual(agent.of("stopped"), [{"type": "stopped", "step": 1}])
            self.assertIn("due %s" % due, output)

    def test_the_pipe_the_file_and_sigterm_say_the_same(self) -> None:
        self.check(lambda agent, _: agent.say({"type": "stop", "checkpoint": True}), True)
        self.check(lambda agent, _: agent.say({"type": "stop", "checkpoint": False}), False)
        self.check(lambda agent, _: agent.stop_file.touch(), False)

    def test_sigterm_stops_a_program_that_asks(self) -> None:
        with FakeAgent() as agent:
            child = agent.start(
                """
                import spotsweep
                spotsweep.should_stop()
                spotsweep.report(1, loss=1)
                while not spotsweep.should_stop():
                    pass
                spotsweep.stopped(1)
                """
            )
            agent.until(lambda: bool(agent.of("report")))
            os.killpg(child.pid, signal.SIGTERM)
            status, output = agent.wait(child)
            self.assertEqual((status, len(agent.of("stopped"))), (0, 1), output)

    def test_sigterm_ends_a_program_that_never_asks(self) -> None:
        with FakeAgent() as agent:
            child = agent.start(
                """
                import signal, spotsweep
                spotsweep.report(1, loss=1)
                signal.pause()
                """
            )
            agent.until(lambda: bool(agent.of("report")))
            os.killpg(child.pid, signal.SIGTERM)
            self.assertEqual(agent.wait(child)[0], -signal.SIGTERM)

    def test_a_handler_of_the_program_is_left_alone(self) -> None:
        with FakeAgent() as agent:
            status, output = agent.run(
                """
                import os, signal, spotsweep
                mine = lambda *_: None
                signal.signal(signal.SIGTERM, mine)
                assert not spotsweep.should_stop()
                assert signal.getsignal(signal.SIGTERM) is mine
                """
            )
            self.assertEqual(status, 0, output)

    def test_a_checkpoint_is_due_by_the_pipe_and_by_the_file_until_one_is_saved(self) -> None:
        with FakeAgent() as agent:
            agent.say({"type": "checkpoint"})
            status, output = agent.run(
                """
                import os, spotsweep
                assert spotsweep.checkpoint.due() and spotsweep.checkpoint.due()
                spotsweep.checkpoint.save({"a": 1}, 3)
                assert not spotsweep.checkpoint.due() and not spotsweep.should_stop()
                open(os.environ["SPOTSWEEP_CHECKPOINTS"] + "/.due", "w")
                assert spotsweep.checkpoint.due()
                """
            )
            self.assertEqual(status, 0, output)

    def test_what_the_agent_says_in_pieces_or_in_words_of_later_versions_does_no_harm(self) -> None:
        with FakeAgent() as agent:
            child = agent.start(self.LOOP)
            agent.until(lambda: bool(agent.of("report")))
            for piece in (b"\n[1]\n{}\nnot json\n\xff\n{\"type\":\"later\"}\n{\"type\":", b"\"stop\",\"checkpoint\"", b":true}\n"):
                os.write(agent._from, piece)
            status, output = agent.wait(child)
            self.assertEqual(status, 0, output)
            self.assertIn("due True", output)

    def test_a_program_whose_agent_is_gone_is_told_to_stop(self) -> None:
        with FakeAgent() as agent:
            child = agent.start(
                """
                import spotsweep
                spotsweep.report(1, loss=1)
                while not spotsweep.should_stop():
                    pass
                spotsweep.report(2, loss=1)
                spotsweep.stopped(2)
                """
            )
            agent.until(lambda: bool(agent.of("report")))
            agent.leave()
            status, output = agent.wait(child)
            self.assertEqual(status, 0, output)
            self.assertIn("the agent cannot be reached any more", output)


class Processes(unittest.TestCase):
    def test_children_of_a_fork_and_of_multiprocessing_are_silent(self) -> None:
        with FakeAgent() as agent:
            status, output = agent.run(
                """
                import multiprocessing, os, spotsweep
                def work(number):
                    spotsweep.report(100 + number, loss=1)
                    spotsweep.checkpoint.save({"a": 1}, 100)
                    spotsweep.done()
                if __name__ == "__main__":
                    spotsweep.report(1, loss=1)
                    for method in ("fork", "spawn", "forkserver"):
                        child = multiprocessing.get_context(method).Process(target=work, args=(1,))
                        child.start(); child.join()
                        assert child.exitcode == 0, method
                    if os.fork() == 0:
                        work(2)
                        os._exit(0)
                    os.wait()
                    spotsweep.report(2, loss=1)
                """
            )
            self.assertEqual(status, 0, output)
            self.assertEqual([(line["type"], line.get("step")) for line in agent.lines], [("report", 1), ("report", 2)])

    def test_ranks_other_than_0_are_silent(self) -> None:
        with FakeAgent() as agent:
            for rank in ("0", "1"):
                agent.extra = {"RANK": rank}
                agent.run("import spotsweep; spotsweep.report(1, loss=1)")
            self.assertEqual(len(agent.lines), 1)

    def test_a_process_may_be_made_the_one_that_speaks(self) -> None:
        with FakeAgent() as agent:
            status, output = agent.run(
                """
                import multiprocessing, spotsweep
                def work():
                    spotsweep.speak_from_here()
                    spotsweep.report(1, loss=1)
                if __name__ == "__main__":
                    child = multiprocessing.get_context("spawn").Process(target=work)
                    child.start(); child.join()
                """
            )
            self.assertEqual(len(agent.of("report")), 1, output)

    def test_a_stop_of_the_group_does_not_reach_the_workers_and_the_parent_ends_them(self) -> None:
        with FakeAgent() as agent:
            child = agent.start(
                """
                import multiprocessing, signal, spotsweep
                if __name__ == "__main__":
                    worker = multiprocessing.get_context("fork").Process(target=signal.pause)
                    worker.start()
                    spotsweep.should_stop()
                    spotsweep.report(1, loss=1)
                    while not spotsweep.should_stop():
                        pass
                    # One that is still on its way to the worker and the next would be one.
                    def settled():
                        with open("/proc/%d/status" % worker.pid) as status:
                            text = status.read()
                        return "State:\\tS" in text and "ShdPnd:\\t0000000000000000" in text
                    while not settled():
                        pass
                    assert worker.is_alive()
                    worker.terminate(); worker.join()
                    assert worker.exitcode == -signal.SIGTERM, worker.exitcode
                    spotsweep.stopped(1)
                """
            )
            agent.until(lambda: bool(agent.of("report")))
            os.killpg(child.pid, signal.SIGTERM)
            status, output = agent.wait(child)
            self.assertEqual((status, len(agent.of("stopped"))), (0, 1), output)


class Alone(unittest.TestCase):
    def test_without_an_agent_it_prints_and_saves_nothing(self) -> None:
        result = run_alone(
            "import spotsweep as s\n"
            "s.report(1, loss=0.25, n=3); s.checkpoint.save({'a': 1}, 1); s.stopped(1); s.done(2, acc=1)\n"
            "assert not s.should_stop() and not s.checkpoint.due() and s.checkpoint.load() is None and s.trial() is None"
        )
        self.assertEqual((result.returncode, result.stdout), (0, "step 1 loss=0.25 n=3\ndone at step 2 acc=1\n"), result)

    def test_fail_says_why_and_exits_with_1(self) -> None:
        result = run_alone("import spotsweep; spotsweep.fail('no data', reason='data')")
        self.assertEqual((result.returncode, result.stderr), (1, "failed (data): no data\n"))

    def test_nothing_but_pythons_own_is_imported(self) -> None:
        result = run_alone(
            "import sys; before = set(sys.modules); import spotsweep\n"
            "print([m for m in sys.modules if m.split('.')[0] in ('torch', 'numpy', 'keras', 'lightning')])"
        )
        self.assertEqual(result.stdout, "[]\n", result.stderr)


if __name__ == "__main__":
    unittest.main()
