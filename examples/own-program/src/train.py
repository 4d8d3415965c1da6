"""Logistic regression on two noisy moons: what a program says to Spotsweep, in plain Python.

Everything between the two lines of dashes is the whole protocol. Without Spotsweep it runs as well:
    python3 train.py --learning_rate=0.1
"""

import argparse
import json
import math
import os
import random
from pathlib import Path

# ---------------------------------------------------------------------------------------------------------------------


def tell(**message):
    """One line for the agent: a JSON object. Outside of Spotsweep, for the terminal."""
    line = json.dumps(message)
    pipe = os.environ.get("SPOTSWEEP_TO_AGENT")
    if pipe is None:
        print(line)
        return
    with open(pipe, "w", encoding="utf-8") as agent:
        agent.write(line + "\n")


def appeared(path):
    """Whether the agent has put a file there."""
    return path is not None and os.path.exists(path)


def save(state, step):
    """Writes a checkpoint, a folder of its own, and announces it; it is not touched again."""
    folder = Path(os.environ["SPOTSWEEP_CHECKPOINTS"]) / f"step-{step}"
    folder.mkdir()
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
    tell(type="checkpoint", step=step, dir=str(folder))


def resume():
    """The state of the checkpoint to go on from, or None at the start of a trial."""
    folder = os.environ.get("SPOTSWEEP_RESUME")
    return json.loads((Path(folder) / "state.json").read_text(encoding="utf-8")) if folder else None


# ---------------------------------------------------------------------------------------------------------------------


def moons(count, seed):
    """Points of two half circles that reach into each other, with noise, and which of them each belongs to."""
    draw = random.Random(seed)
    for index in range(count):
        label = index % 2
        angle = draw.uniform(0, math.pi)
        x, y = math.cos(angle), math.sin(angle)
        if label:
            x, y = 1 - x, 0.5 - y
        yield x + draw.gauss(0, 0.15), y + draw.gauss(0, 0.15), label


def features(x, y, cubic):
    """What the regression sees of a point."""
    plain = [1.0, x, y]
    return plain + [x * x, x * y, y * y, x**3, x * x * y, x * y * y, y**3] if cubic else plain


def measure(weights, samples):
    """Mean loss and accuracy."""
    loss = right = 0.0
    for inputs, label in samples:
        z = sum(w * i for w, i in zip(weights, inputs))
        loss += math.log1p(math.exp(-abs(z))) + max(z, 0.0) - z * label
        right += (z > 0) == (label == 1)
    return loss / len(samples), right / len(samples)


def main():
    """Trains one trial."""
    flags = argparse.ArgumentParser()
    flags.add_argument("--learning_rate", type=float, default=0.1)
    flags.add_argument("--l2", type=float, default=0.0)
    flags.add_argument("--cubic", type=lambda text: text == "True", default=True)
    flags.add_argument("--epochs", type=int, default=30)
    flags = flags.parse_args()

    train = [(features(x, y, flags.cubic), label) for x, y, label in moons(400, seed=1)]
    test = [(features(x, y, flags.cubic), label) for x, y, label in moons(200, seed=2)]
    state = resume() or {"epoch": 0, "weights": [0.0] * len(train[0][0])}
    weights, epoch = state["weights"], state["epoch"]
    tell(type="started", step=epoch, total_steps=flags.epochs)

    while epoch < flags.epochs:
        # The order of an epoch follows from its number alone, so that a resumed trial goes on as if nothing had been.
        order = list(range(len(train)))
        random.Random(1000 + epoch).shuffle(order)
        for index in order:
            inputs, label = train[index]
            z = sum(w * i for w, i in zip(weights, inputs))
            error = 1 / (1 + math.exp(-max(-60.0, min(60.0, z)))) - label
            weights = [w - flags.learning_rate * (error * i + flags.l2 * w) for w, i in zip(weights, inputs)]
        epoch += 1
        loss, _ = measure(weights, train)
        val_loss, val_accuracy = measure(weights, test)
        metrics = {"train_loss": loss, "val_loss": val_loss, "val_accuracy": val_accuracy}
        tell(type="report", step=epoch, data_epoch=float(epoch), metrics=metrics)

        stop = appeared(os.environ.get("SPOTSWEEP_STOP"))
        due = appeared(os.path.join(os.environ.get("SPOTSWEEP_CHECKPOINTS", "/nowhere"), ".due"))
        last = epoch == flags.epochs
        if "SPOTSWEEP_CHECKPOINTS" in os.environ and (stop or due or last):
            save({"epoch": epoch, "weights": weights}, epoch)
        if stop and not last:
            tell(type="stopped", step=epoch)
            return
    tell(type="done", step=epoch)


if __name__ == "__main__":
    main()
