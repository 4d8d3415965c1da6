"""Training steps a second of the ladder's mlp and cnn with DistributedDataParallel over Gloo, as people write it.

torchrun --nproc_per_node N ranks.py MODEL STEPS BATCH  ->  one number: steps a second, after a tenth of the steps as
warm-up. BATCH is that of all ranks together.
"""

import sys
import time

import torch
import torch.distributed as dist
from steps import Cnn, Mlp
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel


def main() -> None:
    name, steps, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    torch.manual_seed(1)
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    batch //= ranks
    model = DistributedDataParallel({"mlp": Mlp, "cnn": Cnn}[name]())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    samples = 60_000 // ranks
    images = torch.rand(samples, 1, 28, 28)
    labels = torch.randint(0, 10, (samples,))
    order = torch.randperm(samples)
    warm_up = steps // 10
    start, running_loss = 0.0, 0.0
    for step in range(warm_up + steps):
        if step == warm_up:
            start = time.perf_counter()
        place = step * batch % (samples - batch)
        chosen = order[place : place + batch]
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images[chosen]), labels[chosen])
        loss.backward()
        optimizer.step()
        running_loss += loss.item()
    if rank == 0:
        print(steps / (time.perf_counter() - start))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
