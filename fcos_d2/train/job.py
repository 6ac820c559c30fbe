"""What `fcos train`, `fcos eval` and `fcos demo` do: from what a user asks for to a folder of results."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from detectron2.data import DatasetCatalog
from detectron2.engine import HookBase
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf

from ..config.overrides import apply_lazy
from ..config.plugins import modules_of
from ..data.synthetic import generate
from ..errors import FcosError
from ..evaluation.scores import scores
from ..files import write_json
from ..visualize import draw_curves
from ..weights.read import load
from ..zoo import get_config
from .own_data import (
    DEFAULT_MODEL,
    OwnData,
    Preset,
    check_classes,
    check_images,
    configure,
    cores,
    holds_config,
    is_yacs_key,
    lazy_config,
    open_data,
    require_nodes,
)  # fmt: skip
from .samples import draw_samples
from .settings import start_threads, without_denormals
from .trainer import LazyTrainer
from .workspace import DEMO_IMAGES, Workspace

__all__ = ["Audience", "DemoSettings", "EvaluationJob", "TrainingJob", "evaluate_job", "run_demo", "train_job"]


# Who is told how far a job is, like the command line's session: say(text), progress(title, total) -> a context with
# update(done, note), waiting(title) -> a context, no_tables() -> a context in which what libraries print is dropped.
Audience: TypeAlias = Any


@dataclass(frozen=True)
class TrainingJob:
    """What was asked of `fcos train`, the options by their names; each process makes its config from it."""

    model: str | None
    data: Path | None
    weights: str | None
    iterations: int | None
    epochs: float | None
    batch_size: int | None
    image_size: int | None
    workers: int | None
    device: str | None
    val_fraction: float | None
    new_classes: bool
    resume: bool
    overrides: tuple[str, ...]
    allow_py: bool = True

    def config(self, output: Path) -> tuple[DictConfig, OwnData | None]:
        """The complete config, and the user's data set, registered in this process.

        Raises:
            FcosError: the model, the data, the weights or an override is wrong.
        """
        weights = "" if self.weights == "none" else self.weights
        model = self.model or (weights if weights and holds_config(weights) else DEFAULT_MODEL)
        cfg = lazy_config(model, self.overrides, allow_py=self.allow_py)
        require_nodes(cfg)
        data = None
        if self.data:
            data = open_data(self.data, self.val_fraction, need=("train", "val"))
            if weights and not self.new_classes:
                remedy = "add --new-classes to learn those anew"
                check_classes(weights, data.class_names, f"the data set {self.data}", remedy)
            numbers = ("image_size", "batch_size", "iterations", "epochs", "workers", "device")
            configure(
                cfg, data.names, data.class_names, train_images=data.images["train"], weights=weights,
                **{name: getattr(self, name) for name in numbers},
            )  # fmt: skip
        else:
            self._edit(cfg, weights)
        cfg.train.output_dir = str(output)
        if self.new_classes:
            cfg.train.init_classes = "drop"
        return apply_lazy(cfg, [text for text in self.overrides if not is_yacs_key(text)]), data

    def _edit(self, cfg: DictConfig, weights: str | None) -> None:
        """Options for a config that names its data itself."""
        for key, value in (
            ("train.init_checkpoint", weights),
            ("train.max_iter", self.iterations),
            ("train.device", self.device),
            ("dataloader.train.total_batch_size", self.batch_size),
            ("dataloader.train.num_workers", self.workers),
            ("dataloader.test.num_workers", self.workers),
        ):
            if value is not None:
                OmegaConf.update(cfg, key, value)


class _TellProgress(HookBase):
    """Tells the loss, and the AP of the last evaluation."""

    def __init__(self, progress: Any) -> None:
        self.progress = progress

    def after_step(self) -> None:
        known = self.trainer.storage.latest()
        notes = [f"loss {self.trainer.storage.history('total_loss').median(20):.3f}"]
        if "bbox/AP50" in known:
            notes.append(f"AP50 {known['bbox/AP50'][0] / 100:.3f}")
        self.progress.update(self.trainer.iter + 1, "  ".join(notes))


def _train(audience: Audience, cfg: DictConfig, folder: Path, resume: bool = False) -> tuple[LazyTrainer, float]:
    """Train to the end; returns the trainer and the seconds that it took."""
    started = time.monotonic()
    _keep_freed_memory()
    with without_denormals():
        start_threads()
    trainer = LazyTrainer(cfg, resume=resume, console=False, folder=str(folder))
    first = comm.is_main_process()
    with audience.progress("training", trainer.max_iter) if first else nullcontext() as progress:
        if progress is not None:
            trainer.register_hooks([_TellProgress(progress)])
        with audience.no_tables():
            trainer.train()
    return trainer, time.monotonic() - started


def _keep_freed_memory() -> None:
    """Let this process, which the command has to itself, keep the memory of one image for the next, up to 64 MiB.

    glibc returns memory when twice the largest block freed so far lies free. Freeing 32 MiB, never touched, raises
    that, for data workers, too: an image takes 15.3 ms, not 17.7 (COCO's sizes). Elsewhere this does nothing.
    """
    torch.empty((32 << 20) - (1 << 13), dtype=torch.uint8)


def train_job(job: TrainingJob, workspace: Workspace, audience: Audience) -> None:
    """Train, and leave pictures and summary.json in the workspace; every process of a training must call it.

    Raises:
        FcosError: something is wrong with what was asked for; an earlier training is as it was.
        TrainingInterrupted: see `LazyTrainer.train`.
    """
    output = workspace.target
    cfg, data = job.config(output)
    first = comm.is_main_process()
    if data and first:
        audience.say(data.described() + f" {cfg.train.max_iter} iterations.")
        names = [name for name in (data.names.train, data.names.val) if name]
        with audience.progress("checking images", data.images["train"] + data.images.get("val", 0)) as progress:
            check_images(names, lambda done, _: progress.update(done))
    comm.synchronize()
    if not first:
        comm.synchronize()  # the folder is there
        _train(audience, cfg, workspace.folder, job.resume)
        return
    with workspace.writing(job.resume) as folder:
        if workspace.replaces:
            audience.say(f"{output} stays as it is until the new training is complete; that is written to {folder}.")
        comm.synchronize()
        trainer, seconds = _train(audience, cfg, folder, job.resume)
        evaluated_on = str(cfg.dataloader.test.dataset.names)
        title = data.folder.resolve().name if data else str(job.model)
        if (folder / "metrics.json").is_file():
            draw_curves(folder / "metrics.json", folder / "curves.png", title)
        draw_samples(trainer, evaluated_on, folder / "detections.png", 6, title)
        best = load(folder / "model_best.pth") if (folder / "model_best.pth").is_file() else {}
        summary = {
            **scores(trainer.results, evaluated_on),
            "best": {"iteration": best.get("iteration"), "AP": best.get("metrics", {}).get("bbox/AP", math.nan) / 100},
            "classes": trainer.class_names,
            "images": data.images if data else None,
            "iterations": trainer.done + 1,
            "seconds": round(seconds, 1),
            "device": cfg.train.device,
            "output": output,
            "checkpoint": output / "model_final.pth",
            "plugins": modules_of(cfg),
            "holds_config": trainer.checkpointer.extra["config"] is not None,
        }
        write_json(folder / "summary.json", summary)


@dataclass(frozen=True)
class EvaluationJob:
    """What was asked of `fcos eval`."""

    weights: str | None
    data: Path | None
    model: str | None
    split: str
    val_fraction: float | None
    workers: int | None
    device: str | None
    overrides: Sequence[str] = ()
    allow_py: bool = True

    def config(self, output: Path) -> DictConfig:
        """The complete config; raises FcosError as `TrainingJob.config` does."""
        cfg = lazy_config(self.model or str(self.weights), self.overrides, allow_py=self.allow_py)
        require_nodes(cfg, ("model", "dataloader", "train"))
        if self.weights is not None:
            cfg.train.init_checkpoint = self.weights
        if self.data is not None:
            own = open_data(self.data, self.val_fraction, need=(self.split,))
            cfg.dataloader.test.dataset.names = getattr(own.names, self.split)
            if self.weights is not None:
                remedy = "evaluate it on data of its classes, or learn these with `fcos train --new-classes`"
                check_classes(self.weights, own.class_names, f"the data set {self.data}", remedy)
            cfg.model.num_classes = len(own.class_names)
        cfg.dataloader.test.num_workers = min(4, cores() // 2) if self.workers is None else self.workers
        cfg.train.device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        cfg.train.output_dir = str(output)
        return apply_lazy(cfg, [text for text in self.overrides if not is_yacs_key(text)])


def evaluate_job(job: EvaluationJob, workspace: Workspace, audience: Audience) -> dict[str, Any]:
    """Evaluate, leave summary.json in the workspace, and return what it says."""
    cfg = job.config(workspace.target)
    dataset = str(cfg.dataloader.test.dataset.names)
    with workspace.writing() as folder:
        trainer = LazyTrainer(cfg, eval_only=True, console=False, folder=str(folder))
        with audience.waiting("evaluating"), audience.no_tables():
            results = trainer.test()
        summary = {
            **scores(results, dataset),
            "dataset": dataset,
            "images": len(DatasetCatalog.get(dataset)),
            "weights": job.weights,
            "output": workspace.target,
        }
        write_json(folder / "summary.json", summary)
    return summary


@dataclass(frozen=True)
class DemoSettings:
    """What the demo trains, and on what; recorded in its metrics.json."""

    model: str = "fcos_R_18_slim_FPN_small"  # variant of the zoo
    train_images: int = 1000
    val_images: int = 100
    image_size: int = 160  # side, pixels
    min_size: float = 16.0  # longer side of the smallest shapes, pixels
    max_objects: int = 6  # in an image, crowd regions aside
    iterations: int = 1600
    batch_size: int = 8
    lr: float = 2e-3  # of AdamW
    weight_decay: float = 0.05
    warmup: float = 0.15  # share of the iterations in which the learning rate rises
    clip_grad: float = 10.0  # largest norm of the gradient
    evaluations: int = 3  # the end included
    channels_last: bool = True
    seed: int = 0  # of images and training

    def preset(self) -> Preset:
        return Preset(
            lr=self.lr, weight_decay=self.weight_decay, batch_size=self.batch_size, epochs=0,
            least_iterations=self.iterations, warmup=self.warmup, clip_grad=self.clip_grad,
            evaluations=self.evaluations, image_size=self.image_size, pixel_std=(57.375, 57.12, 58.395),
        )  # fmt: skip


def run_demo(
    settings: DemoSettings, device: str | None, workspace: Workspace, audience: Audience
) -> tuple[dict[str, Any], list[str]]:
    """Make images, train on them, evaluate, and draw; an earlier demo stays until the new one is complete.

    Returns:
        What metrics.json says, and the names of the classes.
    """
    started = time.monotonic()
    title = "FCOS on synthetic shapes"
    with workspace.writing() as folder:
        data = open_data(_demo_images(settings, workspace, audience))
        try:
            cfg = configure(
                get_config(settings.model), data.names, data.class_names,
                train_images=settings.train_images, weights="", device=device, preset=settings.preset(),
            )  # fmt: skip
            cfg.train.output_dir = str(workspace.target)
            cfg.train.seed = settings.seed
            cfg.train.channels_last = settings.channels_last
            trainer, seconds = _train(audience, cfg, folder)
            evaluated_on = data.names.val or ""
            (folder / "metrics.json").replace(folder / "training.jsonl")
            draw_curves(folder / "training.jsonl", folder / "curves.png", title)
            draw_samples(trainer, evaluated_on, folder / "detections.png", 6, title)
            summary = {
                **scores(trainer.results, evaluated_on),
                "seconds": round(time.monotonic() - started, 1),
                "seconds_training": round(seconds, 1),
                "device": cfg.train.device,
                "checkpoint": workspace.target / "model_final.pth",
                "settings": vars(settings),
            }
            write_json(folder / "metrics.json", summary)
        finally:
            data.forget()
    return summary, list(data.class_names)


def _demo_images(settings: DemoSettings, workspace: Workspace, audience: Audience) -> Path:
    """Make the data set, or take that of an earlier demo with the same settings."""

    def make(folder: Path) -> Path:
        total = settings.train_images + settings.val_images
        with audience.progress("making images", total) as progress:
            generate(
                folder, {"train": settings.train_images, "val": settings.val_images}, (settings.image_size,) * 2,
                seed=settings.seed, min_size=settings.min_size, max_objects=settings.max_objects,
                progress=lambda done, _: progress.update(done),
            )  # fmt: skip
        return folder

    there = workspace.target / "data"
    if (there / "synthetic.json").is_file():
        try:
            return make(there)
        except FcosError:  # of other settings
            if workspace.replaces:
                workspace.extra = DEMO_IMAGES
            else:
                workspace.remove(DEMO_IMAGES)
    return make(workspace.folder / "data")
