"""Fits a small network by data-parallel training, one process on each of several workers.

As a trial of sweep.yaml the agents say who has which rank. Alone: `torchrun --nproc-per-node 2 train.py`.
"""

import os

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import spotsweep

p = spotsweep.params(learning_rate=0.1, hidden=32, steps=500, batch_size=64, seed=1)
on_gpu = torch.cuda.is_available()
device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
dist.init_process_group("nccl" if on_gpu else "gloo")
rank, ranks = dist.get_rank(), dist.get_world_size()

torch.manual_seed(p.seed)
net = torch.nn.Sequential(torch.nn.Linear(2, p.hidden), torch.nn.Tanh(), torch.nn.Linear(p.hidden, 1)).to(device)
model = DistributedDataParallel(net)
optimizer = torch.optim.SGD(model.parameters(), lr=p.learning_rate, momentum=0.9)


def batch(step):
    """This rank's part of the batch of a step, the same whenever it is asked for."""
    generator = torch.Generator().manual_seed(p.seed * 1_000_003 + step)
    x = torch.rand(p.batch_size, 2, generator=generator) * 4 - 2
    y = torch.sin(x[:, :1]) * x[:, 1:]
    return x[rank::ranks].to(device), y[rank::ranks].to(device)


# Every rank finds the same checkpoint; rank 0 alone reports and saves, which the package sees to.
state = spotsweep.ExactState(model=net, optimizer=optimizer)
step = state.load()
while step < p.steps:
    x, y = batch(step)
    optimizer.zero_grad()
    loss = torch.nn.functional.mse_loss(model(x), y)
    loss.backward()
    optimizer.step()
    step += 1
    if step % 50 == 0:
        mean = loss.detach()
        dist.all_reduce(mean)
        spotsweep.report(step, loss=mean.item() / ranks)
    if spotsweep.checkpoint.due():
        state.save(step)
state.save(step, last=True)
spotsweep.done(step)
# Together: a rank that closes Gloo while others still use it may be aborted, or abort them.
dist.barrier()
dist.destroy_process_group()
