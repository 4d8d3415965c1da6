"""Exports the networks of sweep.yaml: `python3 export.py` writes small.pt and wide.pt beside this script.

Needs PyTorch (2.11 made the files that lie here); the workers that train them need no Python.
"""

from pathlib import Path

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(),
        )
        self.dropout = nn.Dropout(0.1)
        self.out = nn.Linear(2 * width, 10)

    def forward(self, images):
        # float32 [batch, 1, 28, 28] in, one logit for each class out.
        return self.out(self.dropout(self.features(images).mean(dim=(2, 3))))


for name, width in [("small", 8), ("wide", 16)]:
    # The trials start from the weights that are exported here.
    torch.manual_seed(1)
    torch.jit.script(Net(width)).save(str(Path(__file__).parent / f"{name}.pt"))
