"""How long a training will take: measured in a few steps of a trainer of its own, which changes nothing."""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.evaluation import inference_context
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig, OmegaConf

from ..data.random_state import generators_kept, seed_generators
from ..devices import cores
from ..evaluation.evaluate import test_sets
from .settings import Log, process
from .trainer import LazyTrainer

__all__ = ["Pace", "measure"]

_LEAST_SECONDS, _MOST_SECONDS, _LEAST_BATCHES = 2.0, 20.0, 3
_IMAGES = 3  # that are evaluated


@dataclass(frozen=True)
class Pace:
    """What a training costs on this machine.

    Attributes:
        step: seconds of an iteration, the loading of its images included.
        image: seconds in which a test image is evaluated; 0 where nothing is.
        images: test images.
    """

    step: float
    image: float
    images: int

    def seconds(self, cfg: DictConfig, done: int = 0) -> float:
        """Of the iterations of a config that are not done yet, and of their evaluations."""
        total, period = cfg.train.max_iter, cfg.train.eval_period
        evaluations = 1 if period < 1 else -(-total // period) - done // period
        return (total - done) * self.step + max(evaluations, 1) * self.evaluation

    @property
    def evaluation(self) -> float:
        """Seconds of an evaluation."""
        return self.images * self.image


def measure(cfg: DictConfig) -> Pace:
    """Take a few steps of a training on its own images, in about as many seconds; all processes must call it.

    The steps are those of `LazyTrainer` with random weights, which stay as they are, in a folder that is removed.
    Nothing of it reaches the training that follows: neither weights nor random numbers nor the order of images.

    Args:
        cfg: of `LazyTrainer`; stays as it is.
    Raises:
        FcosError: as training would.
    """
    own = copy.deepcopy(cfg)
    with tempfile.TemporaryDirectory(prefix="fcos_d2_") as folder, generators_kept():
        own.train.update(output_dir=folder, init_checkpoint="", pictures=False, loggers=[])
        workers = OmegaConf.select(own, "dataloader.train.num_workers") or 0
        for part in ("train", "test"):  # the time of loading is told apart from that of learning
            if OmegaConf.select(own, f"dataloader.{part}.num_workers"):
                own.dataloader[part].num_workers = 0
        trainer = _Trial(own, console=False)
        with process(Log("", False), trainer.options, trainer.device):
            times = list(_steps(trainer))
            image, images = _evaluation(trainer)
    loading, learning = (statistics.fmean(column) for column in zip(*times))
    step = learning + loading
    if workers:  # beside learning: on the CPU at its cost, and on a GPU unless they cannot keep up
        on_cpu = trainer.device.type == "cpu"
        step = learning + loading / cores() if on_cpu else max(learning, loading / workers)
    # The slowest of all processes is what the others wait for.
    return Pace(*map(max, zip(*comm.all_gather((step, image / comm.get_world_size(), images)))))


class _Trial(LazyTrainer):
    """A trainer that tells nobody and keeps nothing."""

    def build_hooks(self) -> list[HookBase]:
        return []


def _steps(trainer: LazyTrainer) -> Iterator[tuple[float, float]]:
    """Seconds of loading and of learning, for each of a few batches.

    A batch is taken twice, and the second time counts: kernels for images of a new size are made in the first.
    """
    trainer.prepare()
    for group in trainer.optimizer.param_groups:
        group["lr"] = 0.0
    start = time.perf_counter()
    with EventStorage(0) as trainer.storage:
        for trainer.iter in range(100):
            _step(trainer)
            trainer.stream.put_back()
            before = time.perf_counter()
            _step(trainer)
            loading = trainer.storage.latest()["data_time"][0]
            yield loading, time.perf_counter() - before - loading
            taken = time.perf_counter() - start
            enough = taken > _MOST_SECONDS or (taken > _LEAST_SECONDS and trainer.iter + 1 >= _LEAST_BATCHES)
            if any(comm.all_gather(enough)):
                break
    trainer.stream.close()


def _step(trainer: LazyTrainer) -> None:
    """One step, until the device has done it."""
    seed_generators(trainer.seed, trainer.iter, comm.get_rank())
    trainer.run_step()
    if trainer.device.type == "cuda":
        torch.cuda.synchronize(trainer.device)


def _evaluation(trainer: LazyTrainer) -> tuple[float, int]:
    """Seconds of a test image, and how many there are."""
    times, total = [], 0
    model = trainer.bare_model
    for name in test_sets(trainer.cfg):
        loader: Any = trainer.build_test_loader(trainer.cfg, name)
        total += len(getattr(loader, "dataset", ()))
        before = time.perf_counter()
        with inference_context(model), torch.inference_mode():
            for inputs, _ in zip(loader, range(_IMAGES)):
                model(inputs)
                times.append(time.perf_counter() - before)
                before = time.perf_counter()
    return (statistics.median(times), total) if times else (0.0, 0)
