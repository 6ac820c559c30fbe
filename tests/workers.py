"""What the processes of a distributed test run: importable by them, unlike the tests."""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from scenes import detector, image_inputs, random_boxes, thin, total
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from fcos_d2.modeling.rewrite import PARTS, rewrite

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


@functools.cache
def _made(recipe: str) -> nn.Module:
    torch.manual_seed(3)
    return thin(recipe).train()


def model_of(recipe: str) -> nn.Module:
    """The same in every process. Batch norm would see other batches there, so the backbone has none."""
    return copy.deepcopy(_made(recipe))


def gradients(recipe: str, kind: str, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Gradients of one process with the whole batch; on one thread as `work`, since threads change the rounding."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = model_of(recipe).to(dtype)
        total(model(batch_of(kind))).backward()
    finally:
        torch.set_num_threads(threads)
    return {name: p.grad for name, p in model.named_parameters()}


@contextmanager
def _processes(rank: int, world: int, folder: str) -> Iterator[list[tuple[int, ...]]]:
    """This process among the others, on one thread; gives a list of the shapes that are all-reduced."""
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
        yield reduced
    finally:
        dist.all_reduce = plain
        dist.destroy_process_group()


def accumulate(rank: int, world: int, cases: Sequence[tuple[str, str]], folder: str) -> None:
    """One process: its share of each batch at once and in two parts; writes gradients, losses and all-reduces.

    In double precision: one image is convolved in another order than two, and rounding may switch a ReLU.
    """
    with _processes(rank, world, folder) as reduced:
        results = {}
        for recipe, kind in cases:
            batch = batch_of(kind)
            share = batch[rank * len(batch) // world : (rank + 1) * len(batch) // world]
            for parts in (1, 2):
                model = DistributedDataParallel(model_of(recipe).double(), broadcast_buffers=False)
                reduced.clear()
                whole = {"whole": model.module.whole_batch(share)} if parts > 1 else {}
                sums: dict[str, float] = {}
                for i in range(parts):
                    part = share[i * len(share) // parts : (i + 1) * len(share) // parts]
                    with nullcontext() if i == parts - 1 else model.no_sync():
                        losses = model(part, **whole)
                        total(losses).backward()
                    for name, value in losses.items():
                        sums[name] = sums.get(name, 0.0) + value.item()
                results[recipe, kind, parts] = {
                    "gradients": {name: p.grad for name, p in model.module.named_parameters()},
                    "losses": sums,
                    "reduced": list(reduced),
                    "average": model.module.dense.loss.average,
                }
        torch.save(results, Path(folder) / f"{rank}.pt")
        dist.barrier()


def checkpoint(rank: int, world: int, folder: str) -> None:
    """One process: a step with batch norms and frozen stages, with gradient checkpointing and without; twice."""
    with _processes(rank, world, folder):
        results = {}
        for parts in PARTS:
            torch.manual_seed(3)
            plain = detector("improved", norm="BN", freeze_at=2).train()
            plain = rewrite(plain, recompute=parts)
            model = DistributedDataParallel(plain, broadcast_buffers=False)
            for _ in range(2):
                total(model(batch_of("boxes everywhere")[rank * 2 : rank * 2 + 2])).backward()
            results[parts] = {
                "gradients": {name: p.grad for name, p in plain.named_parameters() if p.requires_grad},
                "buffers": dict(plain.named_buffers()),
            }
        torch.save(results, Path(folder) / f"{rank}.pt")
        dist.barrier()


def work(rank: int, world: int, cases: Sequence[tuple[str, str]], folder: str) -> None:
    """One process: its share of each batch under DDP; writes gradients, losses and the number of all-reduces."""
    with _processes(rank, world, folder) as reduced:
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


class Cut(Exception):
    """A training that ends like a power cut."""


def config_of(names: Any, output: str, *more: str) -> Any:
    """A training of four iterations on a registered data set, on the CPU."""
    from fcos_d2.config.load import load_config

    return load_config("fcos_R_18_slim_FPN_small", [
        "model.num_classes=5", f"dataloader.train.dataset.names={names.train}", "train.eval_period=0",
        f"dataloader.test.dataset.names={names.val}", "dataloader.train.total_batch_size=4",
        "dataloader.train.num_workers=0", "dataloader.test.num_workers=0", "train.checkpointer.period=2",
        "dataloader.train.mapper.augmentations[0].short_edge_length=[48,64]", "train.max_iter=4",
        "dataloader.test.mapper.augmentations[0].short_edge_length=64", "train.device=cpu", "train.seed=5",
        f"train.output_dir={output}", *more,
    ])  # fmt: skip


def look_for_a_checkpoint(rank: int, world: int, root: str, folder: str) -> None:
    """What a trainer that resumes says, in files "<case> <rank>.txt".

    Cases: "late", the first process is slow to write its checkpoint; "apart", the processes have folders of their own,
    of which that of the first alone has one; "gone", `last_checkpoint` names a file that is gone.
    """
    from fcos_d2.data import find_dataset, register
    from fcos_d2.errors import FcosError
    from fcos_d2.train import LazyTrainer

    with _processes(rank, world, folder):
        names = register(find_dataset(root), "look_two")
        for case in ("late", "apart", "gone"):
            output = Path(folder, case, str(rank)) if case == "apart" else Path(folder, case)
            trainer = LazyTrainer(config_of(names, str(output)), console=False)
            trainer.done = 1
            if rank == 0 and case == "late":
                time.sleep(2)  # the other is at the end of this block long before
            trainer.save("model_0000001")
            if case == "gone":
                output.mkdir(parents=True, exist_ok=True)
                (output / "last_checkpoint").write_text("model_0000009.pth")
            try:
                said = f"resumes at {LazyTrainer(trainer.cfg, resume=True, console=False).start_iter}"
            except FcosError as error:
                said = str(error)
            Path(folder, f"{case} {rank}.txt").write_text(said)
        dist.barrier()


def resume(rank: int, world: int, normalizers: Sequence[str], root: str, folder: str) -> None:
    """Train four iterations at once, and in two halves of which the first is cut; keep both trainings' models.

    Args:
        normalizers: of the losses, one training each; the norms of the backbone learn in the first.
        root: folder of a data set.
        folder: gets `<rank>.pt`: {(normalizer, "whole" or "parts"): state dict}.
    """
    from detectron2.engine.hooks import CallbackHook

    from fcos_d2.data import find_dataset, register
    from fcos_d2.train import LazyTrainer

    def cut_short(trainer: LazyTrainer) -> None:
        if trainer.iter == 2 and trainer.output_dir.endswith("parts") and trainer.start_iter == 0:
            raise Cut

    found = {}
    with _processes(rank, world, folder):
        names = register(find_dataset(root), "resume_two")
        for normalizer in normalizers:
            for way, times in (("whole", 1), ("parts", 2)):
                cfg = config_of(
                    names, f"{folder}/{normalizer}_{way}", f"model.dense.loss.class_normalizer={normalizer}",
                    f"model.dense.loss.box_normalizer={normalizer}", "train.ema.enabled=true",
                )  # fmt: skip
                for i in range(times):
                    trainer = LazyTrainer(cfg, resume=i > 0, console=False)
                    trainer.register_hooks([CallbackHook(before_step=cut_short)])
                    with suppress(Cut):
                        trainer.train()
                found[normalizer, way] = {k: v.clone() for k, v in trainer.bare_model.state_dict().items()}
        dist.barrier()
    torch.save(found, Path(folder) / f"{rank}.pt")
