"""Exports, read back by the programs that they are for: bit for bit what `results` and `metrics` print.

SPOTSWEEP_PROGRAMS names the folder of the programs. Everything happens in a temporary folder and on loopback.
"""

import glob
import json
import logging
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request
from typing import Any, Dict, List, Tuple

PROGRAMS = os.path.abspath(os.environ["SPOTSWEEP_PROGRAMS"])
# A server that does not answer by then hangs: it imports a lot.
SERVER_LIMIT_S = 120
SWEEP = """
name: exported
method: grid
metric: {name: val_loss, goal: minimize}
parameters:
  learning_rate: {values: [0.01, 0.1]}
  momentum: {values: [0.0, 0.9]}
train: {model: softmax, data: synthetic, steps: 120, seed: 3}
checkpoint: {every_steps: 50, keep_last: 1}
retry: {max_failures: 1}
"""

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "true"
os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
logging.getLogger("mlflow").setLevel(logging.ERROR)


def spotsweep(*arguments: str, **environment: str) -> str:
    """What the program prints."""
    command = [os.path.join(PROGRAMS, "spotsweep"), *arguments]
    done = subprocess.run(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    # 10: trials of it diverged, as they should.
    if done.returncode not in (0, 10):
        raise AssertionError("%s: %s" % (" ".join(command), done.stderr.decode()))
    return done.stdout.decode()


def lines(text: str) -> List[Any]:
    return [json.loads(line) for line in text.splitlines()]


def bits(value: Any) -> bytes:
    """A number by its bits; what JSON writes as null is NaN."""
    return struct.pack("<d", math.nan if value is None else float(value))


Curve = List[Tuple[int, bytes]]


def ran(file: str, folder: str) -> Tuple[List[Dict[str, Any]], Dict[int, Dict[str, Curve]]]:
    """Runs a sweep in a folder; gives what `results` and `metrics` print of it."""
    spotsweep(
        "run", file, "--workers", "2", "--dir", folder,
        SPOTSWEEP_TRAINER=os.path.join(PROGRAMS, "stub-trainer"), SPOTSWEEP_STUB_FAULT="2:diverge@60",
    )
    results = lines(spotsweep("results", "--format", "json", "--dir", folder))
    curves = {}
    for trial in results:
        curve: Dict[str, Curve] = {}
        for point in lines(spotsweep("metrics", trial["trial"], "--format", "json", "--dir", folder)):
            step = point.pop("step")
            for name, value in point.items():
                curve.setdefault(name, []).append((step, bits(value)))
        curves[trial["number"]] = curve
    assert [trial["number"] for trial in results] == [0, 1, 2, 3]
    assert {trial["state"] for trial in results} == {"completed", "diverged"}, results
    assert all(len(curves[trial]["val_loss"]) > 3 for trial in (0, 1, 3)), curves
    return results, curves


class Exports(unittest.TestCase):
    folder: str
    dir: str
    results: List[Dict[str, Any]]
    curves: Dict[int, Dict[str, Curve]]

    @classmethod
    def setUpClass(cls) -> None:
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.folder = temporary.name
        file = os.path.join(cls.folder, "sweep.yaml")
        with open(file, "w") as out:
            out.write(SWEEP)
        cls.dir = os.path.join(cls.folder, "dir")
        cls.results, cls.curves = ran(file, cls.dir)

    def export(self, kind: str) -> str:
        to = os.path.join(self.folder, kind)
        spotsweep("export", "exported", "--as", kind, "--to", to, "--dir", self.dir)
        return to

    def compare(self, number: int, finals: Dict[str, Any], curves: Dict[str, Curve]) -> None:
        """Whether `finals` and `curves` are those of a trial."""
        expected = self.results[number]["metrics"]
        self.assertEqual({name: bits(x) for name, x in finals.items()}, {name: bits(x) for name, x in expected.items()})
        self.assertEqual(curves, self.curves[number])

    def compare_tables(self, trials: Any, points: Any) -> None:
        """Whether two tables of pandas are the sweep."""
        self.assertEqual(len(trials), len(self.results))
        for row, trial in zip(trials.to_dict("records"), self.results):
            for name in ("number", "state", "steps", "attempts", "failures", "seconds", "device", "worker"):
                self.assertEqual(row[name], trial[name], name)
            for name in ("weights_digest", "failure"):
                self.assertEqual(row[name] if isinstance(row[name], str) else None, trial[name], name)
            for name, value in trial["params"].items():
                self.assertEqual(row["params." + name], value, name)
            for name, value in trial["metrics"].items():
                self.assertEqual(bits(row["metrics." + name]), bits(value), name)
        for trial in self.results:
            curve: Dict[str, Curve] = {}
            for point in points[points["trial"] == trial["number"]].to_dict("records"):
                curve.setdefault(point["metric"], []).append((point["step"], bits(point["value"])))
                epochs = curve.setdefault("epoch", [])
                if not epochs or epochs[-1][0] != point["step"]:
                    epochs.append((point["step"], bits(point["epoch"])))
            self.compare(trial["number"], trial["metrics"], curve)

    def test_pandas_reads_the_csv(self) -> None:
        import pandas

        to = self.export("csv")
        trials = pandas.read_csv(os.path.join(to, "trials.csv"), float_precision="round_trip")
        points = pandas.read_csv(os.path.join(to, "points.csv"), float_precision="round_trip", parse_dates=["at"])
        self.assertEqual(str(points["at"].dt.tz), "UTC")
        self.compare_tables(trials, points)

    def test_pyarrow_reads_the_parquet_with_types(self) -> None:
        import pyarrow
        import pyarrow.parquet

        to = self.export("parquet")
        trials, points = (pyarrow.parquet.read_table(os.path.join(to, name)) for name in ("trials.parquet", "points.parquet"))
        self.assertEqual(points.schema.field("at").type, pyarrow.timestamp("us", tz="UTC"))
        self.assertEqual(points.schema.field("value").type, pyarrow.float64())
        self.assertEqual(points.schema.field("step").type, pyarrow.int64())
        self.assertEqual(trials.schema.field("params.learning_rate").type, pyarrow.float64())
        self.compare_tables(trials.to_pandas(), points.to_pandas())

    def test_the_json_is_all_that_is_known(self) -> None:
        to = self.export("json")
        with open(os.path.join(to, "manifest.json")) as file:
            manifest = json.load(file)
        with open(os.path.join(to, "trials.jsonl")) as one, open(os.path.join(to, "points.jsonl")) as other:
            trials, points = lines(one.read()), lines(other.read())
        self.assertEqual(manifest["files"]["trials.jsonl"]["lines"], len(trials))
        self.assertEqual(manifest["files"]["points.jsonl"]["lines"], len(points))
        with open(os.path.join(to, "attempts.jsonl")) as file:
            attempts = lines(file.read())
        self.assertEqual(manifest["files"]["attempts.jsonl"]["lines"], len(attempts))
        ends = {(attempt["trial"], attempt["attempt"]): attempt["end"]["how"] for attempt in attempts}
        for trial in trials:
            last = ends[(trial["number"], trial["attempts"])]
            self.assertEqual(last, "finished" if trial["state"] == "completed" else "failed")
        counts = manifest["sweep"]["counts"]
        self.assertEqual({state: count for state, count in counts.items() if count}, {"completed": 3, "diverged": 1})
        for trial, expected in zip(trials, self.results):
            curve: Dict[str, Curve] = {}
            for point in points:
                if point["trial"] == trial["number"]:
                    for name, value in {"epoch": point["epoch"], **point["metrics"]}.items():
                        curve.setdefault(name, []).append((point["step"], bits(value)))
            self.compare(trial["number"], trial["metrics"], curve)
            self.assertEqual(trial["params"], expected["params"])

    def test_tensorboard_reads_every_scalar_and_the_hyperparameters(self) -> None:
        self.compare_tensorboard(self.export("tensorboard"))

    def compare_tensorboard(self, to: str) -> None:
        """Whether the event files below `to` are the sweep."""
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.plugins.hparams import metadata
        from tensorboard.util.tensor_util import make_ndarray

        for trial in self.results:
            accumulator = EventAccumulator(os.path.join(to, str(trial["number"])), size_guidance={"tensors": 0})
            accumulator.Reload()
            curves: Dict[str, Curve] = {}
            finals: Dict[str, Any] = {}
            for tag in accumulator.summary_metadata:
                if accumulator.summary_metadata[tag].plugin_data.plugin_name != "scalars":
                    continue
                read = [(e.step, e.wall_time, make_ndarray(e.tensor_proto)) for e in accumulator.Tensors(tag)]
                self.assertTrue(all(value.dtype == "float64" and wall > 1.5e9 for _, wall, value in read))
                if tag.startswith("final:"):
                    finals[tag[len("final:"):]] = read[0][2].item()
                else:
                    curves[tag] = [(step, bits(value.item())) for step, _, value in read]
            self.compare(trial["number"], finals, curves)
            start = accumulator.summary_metadata[metadata.SESSION_START_INFO_TAG].plugin_data.content
            told = metadata.parse_session_start_info_plugin_data(start).hparams
            self.assertEqual(told["learning_rate"].number_value, trial["params"]["learning_rate"])
            self.assertEqual(told["momentum"].number_value, trial["params"]["momentum"])

    def compare_mlflow(self, uri: str, name: str = "exported") -> None:
        """Whether the MLflow at `uri` has the sweep, each value once."""
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name(name)
        runs = client.search_runs([experiment.experiment_id])
        self.assertEqual(sorted(run.data.tags["spotsweep.number"] for run in runs), ["0", "1", "2", "3"])
        for run in runs:
            trial = self.results[int(run.data.tags["spotsweep.number"])]
            self.assertEqual(run.info.run_name, trial["trial"])
            self.assertEqual(run.info.status, "FINISHED" if trial["state"] == "completed" else "FAILED")
            self.assertEqual({k: float(v) for k, v in run.data.params.items()}, trial["params"])
            curves: Dict[str, Curve] = {}
            finals: Dict[str, Any] = {}
            for key in run.data.metrics:
                history = client.get_metric_history(run.info.run_id, key)
                if key.startswith("final:"):
                    self.assertEqual(len(history), 1, key)
                    finals[key[len("final:"):]] = history[0].value
                else:
                    curves[key] = [(metric.step, bits(metric.value)) for metric in history]
            self.compare(trial["number"], finals, curves)

    def test_mlflow_reads_the_folder(self) -> None:
        self.compare_mlflow(self.export("mlflow"))

    def test_a_server_of_mlflow_has_every_value_once_also_when_told_twice(self) -> None:
        url = self.server("sqlite:///" + os.path.join(self.folder, "mlflow.db"))
        for _ in range(2):
            self.tell(url)
            self.compare_mlflow(url)

    def test_a_server_is_told_the_rest_after_a_kill_and_nothing_again(self) -> None:
        # On files, a server keeps what it is told twice.
        store = os.path.join(self.folder, "store")
        url = self.server(store)
        command = [os.path.join(PROGRAMS, "spotsweep"), "export", "--as", "mlflow", "--to", url, "--dir", self.dir]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
            while child.poll() is None and not glob.glob(os.path.join(store, "*", "*", "metrics", "*")):
                pass
            child.kill()
        for _ in range(2):
            self.tell(url)
            self.compare_mlflow(url)

    def test_live_sinks_hold_what_is_printed_once_the_sweep_has_run(self) -> None:
        # On files, a server keeps what it is told twice.
        url = self.server(os.path.join(self.folder, "live-store"))
        file = os.path.join(self.folder, "live.yaml")
        with open(file, "w") as out:
            mlflow = "{to: mlflow, url: '%s', experiment: live, artifacts: true}" % url
            out.write(SWEEP + "sinks: [{to: tensorboard, dir: runs}, %s]\n" % mlflow)
        folder = os.path.join(self.folder, "live")
        self.results, self.curves = ran(file, folder)
        self.compare_mlflow(url, "live")
        self.compare_artifacts(url, folder)
        self.compare_tensorboard(os.path.join(folder, "sinks", "runs", "exported"))

    def compare_artifacts(self, url: str, folder: str) -> None:
        """Whether the runs of completed trials, and no others, have the weights that `checkpoint get` gives."""
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=url)
        experiment = client.get_experiment_by_name("live")
        for run in client.search_runs([experiment.experiment_id]):
            trial = self.results[int(run.data.tags["spotsweep.number"])]
            names = sorted(artifact.path for artifact in client.list_artifacts(run.info.run_id))
            if trial["state"] != "completed":
                self.assertEqual(names, [])
                continue
            self.assertEqual(names, ["sweep.json", "weights.safetensors"], run.data.tags)
            wanted = os.path.join(folder, "wanted-%d" % trial["number"])
            spotsweep("checkpoint", "get", trial["trial"], "--which", "final", "-o", wanted, "--dir", folder)
            found = client.download_artifacts(run.info.run_id, "weights.safetensors", folder)
            with open(wanted, "rb") as one, open(found, "rb") as other:
                self.assertEqual(one.read(), other.read())

    def tell(self, url: str) -> None:
        spotsweep("export", "exported", "--as", "mlflow", "--to", url, "--dir", self.dir)

    def server(self, store: str) -> str:
        """Starts a server of MLflow on a free port and ends it with the test."""
        log = tempfile.TemporaryFile("w+")
        self.addCleanup(log.close)
        # Its own choice of a free port would not be told: one is taken, and given back just before.
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
            "--backend-store-uri", store, "--artifacts-destination", os.path.join(self.folder, "artifacts"),
        ]
        child = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True)

        def end() -> None:
            # Its workers are of its process group, which is of this test's making.
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()

        self.addCleanup(end)
        url = "http://127.0.0.1:%d" % port
        limit = time.monotonic() + SERVER_LIMIT_S
        while True:
            try:
                with urllib.request.urlopen(url + "/health", timeout=5):
                    return url
            except (urllib.error.URLError, OSError) as error:
                log.seek(0)
                if child.poll() is not None or time.monotonic() > limit:
                    raise AssertionError("the server does not answer: %s\n%s" % (error, log.read())) from error
                # Ends when the server does, or after a moment.
                try:
                    child.wait(timeout=0.1)
                except subprocess.TimeoutExpired:
                    pass


if __name__ == "__main__":
    unittest.main()
