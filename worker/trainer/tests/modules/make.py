"""Makes the TorchScript modules of the tests, for the made-up data set (1x28x28, 10 classes).

The files are kept beside this script, so that the tests need no Python. Made by torch 2.11.0:

    python3 make.py
"""

import warnings
from pathlib import Path
from typing import List

import torch
from torch import nn

warnings.simplefilter("ignore")
HERE = Path(__file__).parent
torch.manual_seed(7)


def small(x: torch.Tensor):
    return nn.functional.avg_pool2d(x, 4).flatten(1)


class Mlp(nn.Module):
    """Dropout, a frozen layer, a parameter of two names, and names that differ in a dot only."""

    def __init__(self, classes: int = 10):
        super().__init__()
        self.flat = nn.Flatten()
        self.narrow = nn.AvgPool2d(4)
        self.fixed = nn.Linear(49, 49)
        self.fixed.requires_grad_(False)
        self.fc = nn.Module()
        self.fc.a_b = nn.Parameter(torch.randn(24, 49) * 0.1)
        self.fc_a = nn.Module()
        self.fc_a.b = nn.Parameter(torch.zeros(24))
        self.again = nn.Module()
        self.again.b = self.fc_a.b
        self.drop = nn.Dropout(0.4)
        self.out = nn.Linear(24, classes)

    def forward(self, x):
        x = self.flat(self.narrow(x))
        x = torch.tanh(self.fixed(x))
        x = torch.relu(x @ self.fc.a_b.t() + self.fc_a.b + self.again.b)
        return self.out(self.drop(x))


class Cnn(nn.Module):
    """Batch normalisation, whose buffers are of two types."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 4, 5, padding=2), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(4),
            nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        )
        self.drop = nn.Dropout2d(0.2)
        self.out = nn.Linear(54, 10)

    def forward(self, x):
        return self.out(self.drop(self.conv(x)).flatten(1))


class Noisy(nn.Module):
    """Draws in evaluation mode, too."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(49, 10)

    def forward(self, x):
        x = small(x)
        return self.out(x + 0.1 * torch.randn_like(x))


class Counting(nn.Module):
    """Assigns to an attribute that is saved nowhere."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(49, 10)
        self.calls: int = 0

    def forward(self, x):
        self.calls += 1
        return self.out(small(x)) * (1.0 + self.calls % 2)


class Remembering(nn.Module):
    """Changes a list that is saved nowhere."""

    seen: List[int]

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(49, 10)
        self.seen = [0]

    def forward(self, x):
        self.seen.append(x.size(0))
        return self.out(small(x)) * (1.0 + len(self.seen) % 2)


class Integers(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(49, 10)

    def forward(self, x):
        return self.out(small(x)).argmax(1)


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(49, 10)

    def forward(self, x):
        x = self.out(small(x))
        return x, x


class Binary(nn.Module):
    """One logit for two classes."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(49, 1)

    def forward(self, x):
        return self.out(small(x))


class Idle(nn.Module):
    """Has a layer that nothing uses."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(49, 10)
        self.spare = nn.Linear(3, 3)

    def forward(self, x):
        return self.out(small(x))


class Forking(nn.Module):
    """Draws on another thread."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(49, 10)

    def forward(self, x):
        noise = torch.jit.fork(torch.randn_like, small(x))
        return self.out(small(x) + torch.jit.wait(noise))


class Unfit(nn.Module):
    """Wants images of another size."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(100, 10)

    def forward(self, x):
        return self.out(small(x))


class Picky(nn.Module):
    """Takes full batches only."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(49, 10)

    def forward(self, x):
        if self.training and x.size(0) == 32:
            raise ValueError("no batch of 32, please")
        return self.out(small(x))


class Constant(nn.Module):
    """Nothing to train."""

    def forward(self, x):
        return small(x)[:, :10]


def script(name: str, module: nn.Module) -> None:
    torch.jit.script(module).save(str(HERE / name))


script("mlp.pt", Mlp())
script("cnn.pt", Cnn())
script("noisy.pt", Noisy())
script("counting.pt", Counting())
script("remembering.pt", Remembering())
script("integers.pt", Integers())
script("pair.pt", Pair())
script("binary.pt", Binary())
script("idle.pt", Idle())
script("forking.pt", Forking())
script("unfit.pt", Unfit())
script("picky.pt", Picky())
script("nothing_to_train.pt", Constant())
script("seven_classes.pt", Mlp(classes=7))
script("double.pt", nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(49, 10)).double())
torch.jit.freeze(torch.jit.script(Mlp().eval())).save(str(HERE / "frozen.pt"))
torch.jit.trace(Cnn().eval(), torch.zeros(2, 1, 28, 28)).save(str(HERE / "traced.pt"))
torch.jit.trace(Cnn(), torch.zeros(2, 1, 28, 28), check_trace=False).save(str(HERE / "traced_in_training.pt"))
torch.save(Mlp().state_dict(), HERE / "weights.pt")
