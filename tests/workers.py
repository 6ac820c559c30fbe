"""What the processes of a distributed test run: importable by them, unlike the tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from scenes import detector, image_inputs, random_boxes, total
from torch import nn
from torch.nn.parallel import DistributedDataParallel

SIZE = (64, 64)
# Numbers of boxes of the four images of a batch: the second process of two gets the last two images.
BATCHES: dict[str, tuple[int, ...]] = {
    "boxes everywhere": (5, 2, 9, 1),
    "one process without boxes": (4, 7, 0, 0),
    "no boxes at all": (0, 0, 0, 0),
}


def batch_of(kind: str) -> list[dict[str, Any]]:
    """Four images; the same in every process."""
    generator = torch.random.fork_rng()
    with generator:
        torch.manual_seed(7)
        return [image_inputs(SIZE, random_boxes(n, SIZE), torch.randint(0, 3, (n,))) for n in BATCHES[kind]]


def model_of(recipe: str) -> nn.Module:
    """The same in every process. Batch norm would see other batches there, so the backbone has none that learns."""
    torch.manual_seed(3)
    return detector(recipe, norm="FrozenBN").train()


def gradients(recipe: str, kind: str) -> dict[str, torch.Tensor]:
    """Gradients of one process with the whole batch; on one thread as `work`, since threads change the rounding."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = model_of(recipe)
        total(model(batch_of(kind))).backward()
    finally:
        torch.set_num_threads(threads)
    return {name: p.grad for name, p in model.named_parameters()}


def work(rank: int, world: int, cases: Sequence[tuple[str, str]], folder: str) -> None:
    """One process: its share of each batch under DDP; writes gradients, losses and the number of all-reduces."""
    torch.set_num_threads(1)
    rendezvous = (Path(folder) / "rendezvous").as_uri()
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=world)
    reduced: list[tuple[int, ...]] = []
    plain = dist.all_reduce

    def counted(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        reduced.append(tuple(tensor.shape))
        return plain(tensor, *args, **kwargs)

    dist.all_reduce = counted
    try:
        results = {}
        for recipe, kind in cases:
            model = DistributedDataParallel(model_of(recipe), broadcast_buffers=False)
            batch = batch_of(kind)
            share = len(batch) // world
            reduced.clear()
            losses = model(batch[rank * share : (rank + 1) * share])
            total(losses).backward()
            results[recipe, kind] = {
                "gradients": {name: p.grad for name, p in model.module.named_parameters()},
                "losses": {name: value.item() for name, value in losses.items()},
                "reduced": list(reduced),
                "average": model.module.dense.loss.average,
            }
        torch.save(results, Path(folder) / f"{rank}.pt")
        dist.barrier()
    finally:
        dist.all_reduce = plain
        dist.destroy_process_group()
