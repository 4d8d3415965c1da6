"""Fits a line to noisy points by stochastic gradient descent with momentum, in plain Python.

Runs alone (`python3 train.py --learning_rate=0.02`) and as a trial of sweep.yaml. Interrupted at any step, it goes on from its
last checkpoint and ends with the same numbers as without.
"""

import random

import spotsweep

p = spotsweep.params(learning_rate=0.01, momentum=0.0, steps=2000, seed=1)

# Everything that the next step depends on; the generator's state is part of it.
state = {"slope": 0.0, "offset": 0.0, "velocity": (0.0, 0.0), "error": 1.0, "generator": random.Random(p.seed).getstate()}
resumed = spotsweep.checkpoint.load()
if resumed:
    state = resumed.state
step = resumed.step if resumed else 0

generator = random.Random()
generator.setstate(state["generator"])

while step < p.steps:
    x = generator.uniform(-1, 1)
    y = 3 * x - 1 + generator.gauss(0, 0.1)
    error = state["slope"] * x + state["offset"] - y
    velocity = tuple(p.momentum * v - p.learning_rate * 2 * error * g for v, g in zip(state["velocity"], (x, 1)))
    state["slope"] += velocity[0]
    state["offset"] += velocity[1]
    state["velocity"] = velocity
    state["error"] = 0.99 * state["error"] + 0.01 * error**2
    step += 1
    if step % 100 == 0:
        spotsweep.report(step, loss=state["error"], slope=state["slope"], offset=state["offset"])

    stopping = spotsweep.should_stop()
    if stopping or spotsweep.checkpoint.due():
        state["generator"] = generator.getstate()
        spotsweep.checkpoint.save(state, step)
    if stopping:
        spotsweep.stopped(step)
        break
else:
    state["generator"] = generator.getstate()
    spotsweep.checkpoint.save(state, step, last=True)
    spotsweep.done(step)
