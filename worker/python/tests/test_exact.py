"""PyTorch: interrupted equals uninterrupted, to the bit."""

import json
import signal
import struct
import unittest
from pathlib import Path

from . import torch_python
from .agent import FakeAgent, run_alone

# Dropout, AdamW, a schedule, and draws from every generator. The last line of its output is the digest of the weights.
TRAIN = """
    import hashlib, os, random, signal, torch, spotsweep
    from torch.utils.data import DataLoader, TensorDataset
    try:
        import numpy
    except ImportError:
        numpy = None
    torch.set_num_threads(1)
    p = spotsweep.params(epochs=3, workers=0, seed=1)
    torch.manual_seed(p.seed); random.seed(p.seed)
    if numpy: numpy.random.seed(p.seed)
    data = TensorDataset(torch.randn(100, 8), torch.randint(0, 3, (100,)))
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(), torch.nn.Dropout(0.3),
                                torch.nn.Linear(16, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [5, 11], gamma=0.5)
    own = torch.Generator().manual_seed(7)
    sampler = spotsweep.ExactSampler(data, batch_size=16, seed=p.seed)
    loader = DataLoader(data, batch_sampler=sampler, num_workers=p.workers)
    state = spotsweep.ExactState(model=model, optimizer=optimizer, scheduler=scheduler, sampler=sampler, own=own)
    step = state.load()
    spotsweep.should_stop()
    for epoch in range(sampler.epoch, p.epochs):
        for x, y in sampler.over(loader):
            x = x + 0.01 * random.random() + 0.01 * torch.rand(1, generator=own)
            if numpy: x = x + 0.01 * float(numpy.random.rand())
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            scheduler.step()
            step += 1
            spotsweep.report(step, loss=loss, epoch_number=epoch)
            if step == int(os.environ.get("AT", "0")):
                os.killpg(os.getpgrp(), getattr(signal, "SIG" + os.environ["HOW"]))
            stopping = spotsweep.should_stop()
            if stopping or step % 4 == 0:
                state.save(step)
            if stopping:
                spotsweep.stopped(step)
                raise SystemExit
    state.save(step, last=True)
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode()); digest.update(bytes(tensor.contiguous().reshape(-1).view(torch.uint8).tolist()))
    print(digest.hexdigest())
    spotsweep.done(step)
"""


@unittest.skipUnless(torch_python.find(), "skipped: no PyTorch (SPOTSWEEP_PYTHON_TORCH names a Python that has it)")
class Exact(unittest.TestCase):
    def agent(self, **params: object) -> FakeAgent:
        agent = FakeAgent(params, python=torch_python.find() or "")
        agent.stores = True
        return agent

    def curve(self, agent: FakeAgent) -> "dict[int, object]":
        curve: "dict[int, object]" = {}
        for line in agent.of("report"):
            self.assertEqual(curve.setdefault(line["step"], line["metrics"]), line["metrics"])
        return curve

    def interrupted_equals_uninterrupted(self, workers: int, *interruptions: "tuple[int, str]") -> None:
        with self.agent(workers=workers) as agent:
            status, output = agent.run(TRAIN)
            self.assertEqual(status, 0, output)
            digest, curve = output.split()[-1], self.curve(agent)
            weights = Path(agent.of("checkpoint")[-1]["dir"], "weights.safetensors").read_bytes()
            self.assertEqual(len(curve), 21)
        with self.agent(workers=workers) as agent:
            for step, how in interruptions:
                agent.extra = {"AT": str(step), "HOW": how}
                status, output = agent.run(TRAIN)
                self.assertEqual(status, -signal.SIGKILL if how == "KILL" else 0, output)
                if how == "TERM":
                    self.assertEqual(agent.lines[-1], {"type": "stopped", "step": step}, output)
            agent.extra = {}
            status, output = agent.run(TRAIN)
            self.assertEqual(status, 0, output)
            self.assertEqual(self.curve(agent), curve)
            self.assertEqual(output.split()[-1], digest)
            last = agent.of("checkpoint")[-1]
            self.assertTrue(last["last"])
            self.assertEqual(Path(last["dir"], "weights.safetensors").read_bytes(), weights)

    def test_interrupted_equals_uninterrupted(self) -> None:
        interruptions = ((2, "KILL"), (6, "KILL"), (7, "TERM"), (8, "TERM"), (15, "KILL"), (20, "TERM"))
        self.interrupted_equals_uninterrupted(0, *interruptions)

    def test_interrupted_equals_uninterrupted_with_workers_of_a_loader_in_the_group_that_is_stopped(self) -> None:
        self.interrupted_equals_uninterrupted(2, (6, "TERM"), (15, "KILL"))

    def test_every_kind_of_tensor_and_state_comes_back(self) -> None:
        with self.agent() as agent:
            make = """
                import collections, torch, spotsweep
                class Model(torch.nn.Module):
                    def __init__(self, value):
                        super().__init__()
                        for name in ("float64", "float32", "float16", "bfloat16", "complex64", "int64", "int32", "int16",
                                     "int8", "uint8", "bool", "complex128"):
                            self.register_buffer("b_" + name, (torch.arange(6).reshape(2, 3) % 2 * value).to(getattr(torch, name)).t())
                        self.register_buffer("scalar", torch.tensor(1.5 * value))
                        self.register_buffer("none", torch.empty(0, 3))
                        self.tied = self.weight = torch.nn.Parameter(torch.full((3,), float(value)))
                class Other:
                    state = None
                    def state_dict(self): return self.state
                    def load_state_dict(self, state): self.state = state
                def build(value):
                    m, n, o = Model(value), torch.nn.Linear(2, 2).requires_grad_(True), Other()
                    n = n.to(torch.bfloat16)
                    optimizer = torch.optim.SGD(list(m.parameters()) + list(n.parameters()), lr=0.1 * value, momentum=0.9)
                    return m, n, o, optimizer
                m, n, o, optimizer = build(1)
            """
            status, output = agent.run(
                make
                + """
                o.state = {"c": collections.Counter("aab"), "s": {1, 2}, "t": (1, [None, b"x"]), 3: torch.float16}
                try:
                    import numpy
                    o.state["n"] = numpy.arange(4, dtype="u2").reshape(2, 2)
                except ImportError:
                    pass
                optimizer.state[n.weight]["momentum_buffer"] = torch.full((2, 2), 1 / 3)
                spotsweep.ExactState(models=[m, n], other=o, optimizer=optimizer).save(5)
                o.state = {"f": print}
                try:
                    spotsweep.ExactState(models=[m, n], other=o).save(6)
                except TypeError as error:
                    print(error)
                """
            )
            self.assertEqual(status, 0, output)
            self.assertIn("the state of other['f'] is a builtin_function_or_method", output)
            self.assertEqual(len(agent.of("checkpoint")), 1)
            status, output = agent.run(
                make
                + """
                expected = m.state_dict()
                m, n, o, optimizer = build(3)
                assert spotsweep.ExactState(models=[m, n], other=o, optimizer=optimizer).load() == 5
                for name, tensor in expected.items():
                    assert torch.equal(m.state_dict()[name], tensor), name
                    assert m.state_dict()[name].dtype == tensor.dtype
                assert o.state["c"] == collections.Counter("aab") and type(o.state["c"]) is collections.Counter
                assert o.state["s"] == {1, 2} and o.state["t"] == (1, [None, b"x"]) and o.state[3] is torch.float16
                assert "n" not in o.state or o.state["n"].tolist() == [[0, 1], [2, 3]]
                moment = optimizer.state[n.weight]["momentum_buffer"]
                assert moment.dtype == torch.float32 and torch.equal(moment, torch.full((2, 2), 1 / 3)), moment
                assert optimizer.param_groups[0]["lr"] == 0.1
                """
            )
            self.assertEqual(status, 0, output)

    def test_weights_are_a_safetensors_file(self) -> None:
        with self.agent() as agent:
            status, output = agent.run(
                """
                import torch, spotsweep
                model = torch.nn.Linear(2, 1)
                with torch.no_grad(): model.weight.copy_(torch.tensor([[1.0, 2.0]])); model.bias.fill_(3.0)
                spotsweep.ExactState(model=model).save(1)
                """
            )
            self.assertEqual(status, 0, output)
            file = Path(agent.of("checkpoint")[0]["dir"], "weights.safetensors").read_bytes()
            (length,) = struct.unpack("<Q", file[:8])
            self.assertEqual(length % 8, 0)
            self.assertEqual(
                json.loads(file[8 : 8 + length]),
                {
                    "bias": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                    "weight": {"dtype": "F32", "shape": [1, 2], "data_offsets": [4, 12]},
                },
            )
            self.assertEqual(struct.unpack("<3f", file[8 + length :]), (3.0, 1.0, 2.0))

    def test_a_checkpoint_that_names_code_is_not_run(self) -> None:
        with self.agent() as agent:
            folder = agent.root / "resume"
            folder.mkdir()
            agent.resume = {"step": 1, "dir": str(folder)}
            status, output = agent.run(
                """
                import os, torch, spotsweep
                class Bad:
                    def __reduce__(self): return os.system, ("touch ran",)
                torch.save({"version": 1, "parts": Bad()}, os.environ["SPOTSWEEP_RESUME"] + "/state.pt")
                spotsweep.ExactState(model=torch.nn.Linear(1, 1)).load()
                """
            )
            self.assertEqual(status, 1)
            self.assertFalse((agent.root / "ran").exists())
            self.assertEqual(agent.of("failed")[0]["reason"], "checkpoint", output)

    def test_a_checkpoint_cut_short_or_of_other_parts_is_said_to_the_agent(self) -> None:
        with self.agent() as agent:
            folder = agent.root / "resume"
            agent.resume = {"step": 1, "dir": str(folder)}
            status, output = agent.run(
                """
                import os, pathlib, shutil, torch, spotsweep
                m = torch.nn.Linear(2, 2)
                spotsweep.ExactState(model=m).save(1)
                found = pathlib.Path(os.environ["SPOTSWEEP_RESUME"])
                while not (found.parent / "stored-0" / "state.pt").exists():
                    pass
                for change, parts in (
                    ("weights.safetensors", {"model": m}),
                    ("state.pt", {"model": m}),
                    ("", {"model": m, "optimizer": torch.optim.SGD(m.parameters(), lr=1)}),
                    ("", {"net": m}),
                    ("", {"model": torch.nn.Linear(2, 3)}),
                ):
                    shutil.copytree(found.parent / "stored-0", found)
                    if change:
                        (found / change).write_bytes((found / change).read_bytes()[:-5])
                    try:
                        spotsweep.ExactState(**parts).load()
                    except spotsweep.CheckpointError:
                        pass
                    shutil.rmtree(found)
                """
            )
            self.assertEqual(status, 0, output)
            failed = agent.of("failed")
            self.assertEqual([line["reason"] for line in failed], ["checkpoint"] * 5)
            for line, says in zip(
                failed,
                ("cut short", "state.pt", "there are model, optimizer", "the parts model, and there are net", "size mismatch"),
            ):
                self.assertIn("the checkpoint to resume from cannot be read", line["message"])
                if says != "state.pt":
                    self.assertIn(says, line["message"])

    def test_a_sampler_that_does_not_know_what_was_trained_is_an_error(self) -> None:
        with self.agent() as agent:
            status, output = agent.run(
                """
                import torch, spotsweep
                from torch.utils.data import DataLoader, TensorDataset
                data = TensorDataset(torch.zeros(10))
                sampler = spotsweep.ExactSampler(data, 2)
                next(iter(DataLoader(data, batch_sampler=sampler)))
                spotsweep.ExactState(model=torch.nn.Linear(1, 1), sampler=sampler).save(1)
                """
            )
            self.assertEqual(status, 1)
            self.assertIn("hint: `for batch in sampler.over(loader)`", output)


class Sampler(unittest.TestCase):
    def test_its_order_is_the_same_on_every_machine_and_version(self) -> None:
        script = (
            "import hashlib, spotsweep as s\n"
            "sampler = s.ExactSampler(1000, 7, seed=3)\n"
            "print(hashlib.sha256(repr([sampler.order(e) for e in (0, 1)]).encode()).hexdigest()[:16])\n"
            "assert sorted(sampler.order(5)) == list(range(1000)) and sampler.order(0) != sampler.order(1)"
        )
        result = run_alone(script)
        self.assertEqual(result.stdout.strip(), "19a767f3fe31cf12", result.stderr)

    def test_it_goes_on_from_any_position_with_the_next_batch(self) -> None:
        result = run_alone(
            "import spotsweep as s\n"
            "def make(): return s.ExactSampler(10, 3, seed=1)\n"
            "whole = make(); expected = [b for _ in range(3) for b in whole.over()]\n"
            "assert len(expected) == 12 and len(whole) == 4 and whole.epoch == 3\n"
            "for cut in range(13):\n"
            "    first = make(); seen = []; saved = first.state_dict()\n"
            "    for batch in (b for _ in range(3) for b in first.over()):\n"
            "        if len(seen) == cut: break\n"
            "        seen.append(batch); saved = first.state_dict()\n"
            "    second = make(); second.load_state_dict(saved)\n"
            "    for _ in range(second.epoch, 3): seen.extend(second.over())\n"
            "    assert seen == expected, cut\n"
            "assert [len(b) for b in s.ExactSampler(range(10), 3, drop_last=True, shuffle=False).over()] == [3, 3, 3]\n"
            "try: s.ExactSampler(11, 3).load_state_dict(saved)\n"
            "except ValueError as error: print(error)"
        )
        self.assertEqual(result.stdout, "the checkpoint's sampler has size=10, this one 11\n", result.stderr)


if __name__ == "__main__":
    unittest.main()
