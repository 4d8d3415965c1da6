"""One of the ranks of a trial: adds numbers up with the others over plain sockets, step by step.

Rank 0 reports and saves. What it is and how far it came stands in files below MARKS, where gates hold it up as well.
"""

import json
import os
import signal
import socket
import sys
import time

STEPS = 40
GATES = (10, 20, 30)
PATIENCE_S = 60
RANK, WORLD = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
EPOCH = os.environ["SPOTSWEEP_ATTEMPT"]
NUMBER = os.environ["SPOTSWEEP_TRIAL"].rsplit("/", 1)[1]


def mark(name, text=""):
    path = os.path.join(os.environ["MARKS"], name)
    with open(path + "~" + str(os.getpid()), "w") as file:
        file.write(text)
    os.rename(file.name, path)


def say(**message):
    with open(os.environ["SPOTSWEEP_TO_AGENT"], "w") as pipe:
        pipe.write(json.dumps(message) + "\n")


def check_environment():
    expected = {"WORLD_SIZE": "3", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "GROUP_RANK": os.environ["RANK"]}
    for name, value in expected.items():
        assert os.environ[name] == value, (name, os.environ[name])
    with open(os.environ["SPOTSWEEP_JOB"]) as file:
        job = json.load(file)
    assert (job["rank"], job["world_size"]) == (RANK, WORLD), job


def meet():
    """Connections to the others: all of them for rank 0, by rank, and rank 0's for the others."""
    address = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    if RANK == 0:
        listener = socket.create_server(address)
        files = [listener.accept()[0].makefile("rw") for _ in range(WORLD - 1)]
        by_rank = sorted((int(file.readline()), file) for file in files)
        assert [rank for rank, _ in by_rank] == list(range(1, WORLD)), by_rank
        return [file for _, file in by_rank]
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            file = socket.create_connection(address).makefile("rw")
            break
        except ConnectionRefusedError:
            assert time.monotonic() < until, "rank 0 does not listen"
            time.sleep(0.01)
    print(RANK, file=file, flush=True)
    return [file]


def together(peers, number):
    """The sum of every rank's number."""
    if RANK > 0:
        print(number, file=peers[0], flush=True)
        return int(peers[0].readline())
    total = number + sum(int(peer.readline()) for peer in peers)
    for peer in peers:
        print(total, file=peer, flush=True)
    return total


def save(step, total):
    folder = os.path.join(os.environ["SPOTSWEEP_CHECKPOINTS"], str(step))
    if not os.path.exists(folder):
        os.mkdir(folder)
        with open(os.path.join(folder, "state.json"), "w") as file:
            json.dump({"step": step, "total": total}, file)
        say(type="checkpoint", step=step, dir=folder)


def main():
    check_environment()
    with open(os.environ["SPOTSWEEP_PARAMS"]) as file:
        x = json.load(file)["x"]
    step, total = 0, 0
    if "SPOTSWEEP_RESUME" in os.environ:
        with open(os.path.join(os.environ["SPOTSWEEP_RESUME"], "state.json")) as file:
            state = json.load(file)
        step, total = state["step"], state["total"]
        if RANK == 0:
            mark(f"resumed-{NUMBER}-{EPOCH}", str(step))
    mark(f"pid-{NUMBER}-{EPOCH}-{RANK}", str(os.getpid()))
    peers = meet()
    while step < STEPS:
        if RANK == 0 and step + 1 in GATES:
            if NUMBER == "0":
                mark(f"at-{step + 1}", EPOCH)
            while not os.path.exists(os.path.join(os.environ["MARKS"], f"go-{step + 1}")):
                time.sleep(0.01)
        step += 1
        total += together(peers, x * step * (RANK + 1))
        say(type="report", step=step, metrics={"loss": total})
        if RANK == 0:
            save(step, total)


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
main()
