"""Training steps a second of the ladder's mlp and cnn in plain eager PyTorch, as people write it.

steps.py MODEL STEPS THREADS  ->  one number: steps a second, after a tenth of the steps as warm-up
"""

import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

BATCH = 64


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(784, 256)
        self.out = nn.Linear(256, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(F.relu(self.hidden(x.flatten(1))))


class Cnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 32, 5, padding=2)
        self.second = nn.Conv2d(32, 64, 5, padding=2)
        self.dense = nn.Linear(64 * 7 * 7, 512)
        self.out = nn.Linear(512, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.first(x)), 2)
        x = F.max_pool2d(F.relu(self.second(x)), 2)
        return self.out(F.relu(self.dense(x.flatten(1))))


def main() -> None:
    name, steps, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    model = {"mlp": Mlp, "cnn": Cnn}[name]()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    images = torch.rand(60_000, 1, 28, 28)
    labels = torch.randint(0, 10, (60_000,))
    order = torch.randperm(60_000)
    warm_up = steps // 10
    start, running_loss = 0.0, 0.0
    for step in range(warm_up + steps):
        if step == warm_up:
            start = time.perf_counter()
        place = step * BATCH % (60_000 - BATCH)
        chosen = order[place : place + BATCH]
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images[chosen]), labels[chosen])
        loss.backward()
        optimizer.step()
        running_loss += loss.item()
    print(steps / (time.perf_counter() - start))


if __name__ == "__main__":
    main()
