"""Scripts that use wandb: W&B's rules of steps, config and summary; everything else is a clear error."""

import unittest

from .agent import FakeAgent


class Wandb(unittest.TestCase):
    def agent(self, **params: object) -> FakeAgent:
        agent = FakeAgent(dict(params))
        agent.compat = True
        return agent

    def rows(self, script: str) -> "list[tuple[int, dict[str, float]]]":
        with self.agent() as agent:
            status, output = agent.run("import wandb\nwandb.init()\n" + script)
            self.assertEqual(status, 0, output)
            return [(line["step"], line["metrics"]) for line in agent.of("report")]

    def test_each_log_is_a_step(self) -> None:
        rows = self.rows("for n in range(3): wandb.log({'loss': n})")
        self.assertEqual(rows, [(0, {"loss": 0}), (1, {"loss": 1}), (2, {"loss": 2})])

    def test_commit_false_gathers_a_row(self) -> None:
        rows = self.rows(
            "wandb.log({'a': 1}, commit=False); wandb.log({'b': 2}, commit=False); wandb.log({'a': 3}); wandb.log({'c': 4})"
        )
        self.assertEqual(rows, [(0, {"a": 3, "b": 2}), (1, {"c": 4})])

    def test_a_step_that_is_named_is_complete_with_the_next_or_by_commit(self) -> None:
        rows = self.rows(
            "wandb.log({'a': 1}, step=5); wandb.log({'b': 2}, step=5); wandb.log({'a': 3}, step=6)\n"
            "wandb.log({'a': 0}, step=2)\n"
            "wandb.log({'a': 4}, step=8, commit=True); wandb.log({'a': 5})\n"
        )
        self.assertEqual(rows, [(5, {"a": 1, "b": 2}), (6, {"a": 3}), (8, {"a": 4}), (9, {"a": 5})])

    def test_nested_metrics_are_joined_with_a_dot(self) -> None:
        self.assertEqual(self.rows("wandb.log({'val': {'loss': 1, 'deep': {'x': 2}}})"), [(0, {"val.loss": 1, "val.deep.x": 2})])

    def test_the_sweep_goes_over_the_config_of_the_script(self) -> None:
        with self.agent(lr=0.5, optimizer={"name": "sgd"}) as agent:
            status, output = agent.run(
                """
                import argparse, wandb
                run = wandb.init(project="p", entity="e", name="n", tags=["t"], config={"lr": 0.1, "epochs": 3})
                c = wandb.config
                assert wandb.run is run and run.config is c and run.name == "n"
                assert (c.lr, c["lr"], c.epochs, c.optimizer["name"], c.get("x", 9)) == (0.5, 0.5, 3, "sgd", 9)
                c.lr = 0.9
                c.update({"lr": 0.8, "batch": 4}); c.setdefaults({"batch": 5, "seed": 1})
                c.update(argparse.Namespace(depth=2), allow_val_change=True)
                assert dict(c) == {"lr": 0.5, "optimizer": {"name": "sgd"}, "epochs": 3, "batch": 4, "seed": 1, "depth": 2}, c
                assert "lr" in c and not hasattr(c, "nothing")
                """
            )
            self.assertEqual(status, 0, output)
            self.assertIn("config item 'lr' stays 0.5", output)

    def test_the_summary_is_the_last_of_each_name_or_what_the_script_sets(self) -> None:
        with self.agent() as agent:
            status, output = agent.run(
                """
                import wandb
                with wandb.init() as run:
                    for n in range(3):
                        run.log({"loss": 3 - n})
                    wandb.summary["best"] = 0.25
                    run.summary.note = "text"
                    assert wandb.summary["loss"] == 1
                print("behind")
                """
            )
            self.assertEqual(status, 0, output)
            self.assertEqual(agent.lines[-1], {"type": "done", "metrics": {"loss": 1, "best": 0.25}})

    def test_a_script_that_never_finishes_its_run_is_finished_by_its_end(self) -> None:
        with self.agent() as agent:
            agent.run("import wandb; wandb.init(); wandb.log({'a': 1}, step=3)")
            self.assertEqual([line["type"] for line in agent.lines], ["report", "done"])

    def test_a_script_that_fails_is_not_done(self) -> None:
        for end in ("raise KeyError('x')", "import sys; sys.exit(3)", "wandb.finish(exit_code=1)", "1/0", "import spotsweep; spotsweep.fail('x')"):
            with self.agent() as agent:
                agent.run("import wandb; wandb.init(); wandb.log({'a': 1})\n" + end)
                self.assertEqual([line["type"] for line in agent.lines if line["type"] != "failed"], ["report"], end)
        with self.agent() as agent:
            agent.run("import sys, wandb; wandb.init(); wandb.log({'a': 1})\nsys.exit()")
            self.assertEqual([line["type"] for line in agent.lines], ["report", "done"])

    def test_everything_else_is_an_error_that_names_it(self) -> None:
        for call, name in (
            ("wandb.Image(1)", "wandb.Image"),
            ("wandb.watch(1)", "wandb.watch"),
            ("from wandb import Table", "wandb.Table"),
            ("wandb.init(sync_tensorboard=True)", "wandb.init(sync_tensorboard=...)"),
            ("wandb.init().log_artifact(1)", "wandb.run.log_artifact"),
            ("wandb.run_that()", "wandb.run_that"),
        ):
            with self.agent() as agent:
                status, output = agent.run("import wandb\n" + call)
                self.assertEqual(status, 1, call)
                self.assertIn("%s is not supported by Spotsweep's `compat: wandb`" % name, output)
        for call, says in (
            ("wandb.log({'a': 1})", "before wandb.init()"),
            ("wandb.init(); wandb.finish(); wandb.log({'a': 1})", "wandb.log() after wandb.finish()"),
            ("wandb.init(); wandb.finish(); wandb.init()", "this trial's run is finished"),
            ("wandb.init(); wandb.log(3)", "takes a dictionary"),
            ("wandb.init(config='file.yaml')", "takes a dictionary"),
        ):
            with self.agent() as agent:
                status, output = agent.run("import wandb\n" + call)
                self.assertEqual(status, 1, call)
                self.assertIn(says, output)

    def test_it_runs_without_an_agent_and_with_its_folder_alone_on_the_path(self) -> None:
        with self.agent() as agent:
            environment = agent.environment()
            environment["PYTHONPATH"] = environment["PYTHONPATH"].split(":")[1]
            for name in list(environment):
                if name.startswith("SPOTSWEEP_"):
                    del environment[name]
            status, output = agent.run(
                "import wandb; wandb.init(config={'lr': 1}); wandb.log({'loss': 0.5}); wandb.finish()", environment
            )
            self.assertEqual((status, output), (0, "step 0 loss=0.5\ndone loss=0.5\n"))


if __name__ == "__main__":
    unittest.main()
