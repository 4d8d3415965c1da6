"""The callbacks of Lightning, Hugging Face and Keras, driven by stand-ins that call them as those libraries do.

The stand-ins know the moments and the names that the callbacks use. With the libraries themselves it is tried by hand.
"""

import unittest

from .agent import FakeAgent

LIGHTNING = """
    import os, signal, sys, types, json
    module = types.ModuleType("lightning.pytorch")
    class Callback: pass
    module.Callback = Callback
    sys.modules["lightning"] = types.ModuleType("lightning")
    sys.modules["lightning.pytorch"] = module
    import spotsweep
    from spotsweep.lightning import SpotsweepCallback, resume_path
    class Trainer:
        world_size, sanity_checking, should_stop = 1, False, False
        def __init__(self, callback):
            self.callback, self.callback_metrics = callback, {}
        def save_checkpoint(self, path):
            json.dump([self.current_epoch, self.global_step], open(path, "w"))
        def fit(self, ckpt_path):
            epoch, self.global_step = json.load(open(ckpt_path)) if ckpt_path else (0, 0)
            self.sanity_checking = True; self.callback.on_validation_end(self, None); self.sanity_checking = False
            for self.current_epoch in range(epoch, 3):
                while self.global_step < 4 * (self.current_epoch + 1) and not self.should_stop:
                    self.global_step += 1
                    if self.global_step == int(os.environ.get("AT", "0")):
                        os.kill(os.getpid(), signal.SIGTERM)
                    self.callback.on_train_batch_end(self, None, {}, None, 0)
                self.callback_metrics = {"loss": 1 / self.global_step}
                self.callback.on_validation_end(self, None)
                self.callback.on_train_epoch_end(self, None)
                if self.should_stop: break
            self.callback.on_train_end(self, None)
    spotsweep.should_stop()
    Trainer(SpotsweepCallback(mid_epoch=MID)).fit(resume_path())
"""

TRANSFORMERS = """
    import os, signal, sys, types
    module = types.ModuleType("transformers")
    class TrainerCallback: pass
    module.TrainerCallback = TrainerCallback
    sys.modules["transformers"] = module
    import spotsweep
    from spotsweep.transformers import SpotsweepCallback, resume_path
    spotsweep.should_stop()
    here, args = types.SimpleNamespace, types.SimpleNamespace(output_dir="out")
    state, callback, path = here(global_step=0, epoch=0.0), SpotsweepCallback(), resume_path()
    if path:
        state.global_step = int(open(path + "/step").read())
    control = here(should_save=False, should_training_stop=False)
    while state.global_step < 12 and not control.should_training_stop:
        callback.on_step_begin(args, state, control)
        state.global_step += 1
        state.epoch = state.global_step / 4
        if state.global_step == int(os.environ.get("AT", "0")):
            os.kill(os.getpid(), signal.SIGTERM)
        control = callback.on_step_end(args, state, control)
        if state.global_step % 4 == 0:
            callback.on_log(args, state, control, logs={"loss": 1 / state.global_step, "epoch": state.epoch, "text": "x"})
            callback.on_log(args, state, control, logs={"eval_loss": 2 / state.global_step})
        if control.should_save:
            os.makedirs("out/checkpoint-%d" % state.global_step)
            open("out/checkpoint-%d/step" % state.global_step, "w").write(str(state.global_step))
            callback.on_save(args, state, control)
            control.should_save = False
    callback.on_train_end(args, state, control)
"""

KERAS = """
    import os, signal, sys, types
    module = types.ModuleType("keras")
    class Callback: pass
    module.callbacks = types.SimpleNamespace(Callback=Callback)
    sys.modules["keras"] = module
    import spotsweep
    from spotsweep.keras import SpotsweepCallback, resume
    class Model:
        optimizer, stop_training, epochs = None, False, 0
        def save_weights(self, path): open(path, "w").write(str(self.epochs))
        def load_weights(self, path): self.epochs = int(open(path).read())
        def fit(self, callback, initial_epoch):
            callback.model, batches = self, 0
            for epoch in range(initial_epoch, 3):
                callback.on_epoch_begin(epoch)
                for batch in range(4):
                    if epoch * 4 + batch + 1 == int(os.environ.get("AT", "0")):
                        os.kill(os.getpid(), signal.SIGTERM)
                    callback.on_train_batch_end(batch, {"loss": 9.0})
                    if self.stop_training: break
                self.epochs = epoch + 1
                callback.on_epoch_end(epoch, {"loss": 1 / (epoch + 1)})
                if self.stop_training: break
            callback.on_train_end()
    spotsweep.should_stop()
    model = Model()
    start = resume(model)
    assert start == model.epochs
    model.fit(SpotsweepCallback(), start)
"""


class Callbacks(unittest.TestCase):
    def curves(self, script: str, *stops: int) -> "tuple[list[object], list[str]]":
        """What was reported, each step once, and the kinds of the lines that were said besides."""
        with FakeAgent() as agent:
            agent.stores = True
            (agent.checkpoints / ".due").touch()
            for stop in (*stops, 0):
                agent.extra = {"AT": str(stop)}
                status, output = agent.run(script)
                self.assertEqual(status, 0, output)
                for left in (agent.root / "out").glob("*"):
                    for file in left.iterdir():
                        file.unlink()
                    left.rmdir()
                (agent.checkpoints / ".due").unlink(missing_ok=True)
            reports: "dict[int, object]" = {}
            for line in agent.of("report"):
                report = (line["step"], line["data_epoch"], line["metrics"])
                self.assertEqual(reports.setdefault(line["step"], report), report)
            return list(reports.values()), [line["type"] for line in agent.lines if line["type"] != "report"]

    def test_a_run_of_lightning_that_is_stopped_goes_on_where_it_was(self) -> None:
        anywhere, at_ends = LIGHTNING.replace("MID", "True"), LIGHTNING.replace("MID", "False")
        whole, _ = self.curves(anywhere)
        self.assertEqual(whole, [(step, step / 4, {"loss": 1 / step}) for step in (4, 8, 12)])
        parts, said = self.curves(anywhere, 3, 10)
        self.assertEqual(parts, whole)
        self.assertEqual(said[-4:], ["stopped", "checkpoint", "stopped", "checkpoint"])
        parts, said = self.curves(at_ends, 6, 10)
        self.assertEqual(parts, whole)
        self.assertEqual(said, ["checkpoint", "stopped", "stopped", "checkpoint"])

    def test_a_run_of_transformers_that_is_stopped_goes_on_where_it_was(self) -> None:
        whole, _ = self.curves(TRANSFORMERS)
        self.assertEqual(
            whole, [(step, step / 4, {"loss": 1 / step, "eval_loss": 2 / step}) for step in (4, 8, 12)]
        )
        parts, said = self.curves(TRANSFORMERS, 3, 10)
        self.assertEqual(parts, whole)
        self.assertEqual(said[-2:], ["checkpoint", "stopped"])

    def test_a_run_of_keras_that_is_stopped_goes_on_at_its_epoch(self) -> None:
        whole, _ = self.curves(KERAS)
        self.assertEqual(whole, [(epoch, epoch, {"loss": 1 / epoch}) for epoch in (1, 2, 3)])
        parts, said = self.curves(KERAS, 7, 10)
        self.assertEqual(parts, whole)
        self.assertEqual(said, ["checkpoint", "stopped", "stopped", "checkpoint"])

    def test_a_library_that_is_not_there_is_an_error_with_a_hint(self) -> None:
        with FakeAgent() as agent:
            for name in ("lightning", "transformers", "keras"):
                block = "import sys; sys.modules.update({n: None for n in ('lightning', 'lightning.pytorch', "
                status, output = agent.run(block + "'pytorch_lightning', 'transformers', 'keras')})\nimport spotsweep.%s" % name)
                self.assertIn("hint: pip install %s" % name, output)


if __name__ == "__main__":
    unittest.main()
