"""From what a user asks for to the config of a training: model, weights to start from, recipe, length."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from detectron2.data import DatasetCatalog
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf

from .. import zoo
from ..config.overrides import apply_lazy
from ..errors import FcosError
from ..files import write_json
from ..paths import CHECKPOINTS
from . import own_data
from .budget import fit_to_time
from .pace import Pace
from .presets import DEFAULT_MODELS, IMAGE_SIZES, PRESETS, Preset, choose_preset, choose_size
from .start import Start, choose_start, classes_kept, model_of
from .workspace import default_folder

__all__ = ["RECIPE", "Plan", "TrainingJob", "configure"]

RECIPE = "recipe.json"  # what was chosen, for whoever resumes the training


@dataclass(frozen=True)
class Plan:
    """A config, and why it is as it is.

    Attributes:
        cfg: complete.
        data: the user's data set, registered in this process; None where the config names its data.
        model: variant, config file or checkpoint that is trained.
        start: the weights; None where the config names them.
        size: name of the row of presets.
        preset: the row, as it was adapted.
        image_size: shorter side of test images, pixels, if that is known.
        sized: the same if it was chosen or asked for, not the config's own.
        pace: measured, where a time was to be kept.
        said: what was chosen to keep it.
    """

    cfg: DictConfig
    data: own_data.OwnData | None = None
    model: str = ""
    start: Start | None = None
    size: str = ""
    preset: Preset | None = None
    image_size: int | None = None
    sized: int | None = None
    pace: Pace | None = None
    said: str = ""

    def write(self, folder: Path) -> None:
        """Write RECIPE: what was chosen, by the names of the options that choose it again."""
        cfg, start = self.cfg, self.start or Start("", str(self.cfg.train.init_checkpoint), "")
        chosen = {
            "model": self.model,
            "weights": start.weights or "none",
            "start": start.kind,
            "image_size": self.sized,
            "batch_size": cfg.dataloader.train.total_batch_size,
            "iterations": cfg.train.max_iter,
            "data_size": self.size,
            "preset": None if self.preset is None else asdict(self.preset),
        }
        write_json(folder / RECIPE, chosen)

    def described(self, resumes: bool, new_classes: bool) -> Iterator[str]:
        """Sentences for the user: the data, what the weights know of its classes, and the recipe."""
        if self.data is not None and self.start is not None:
            yield self.data.described()
            one_stage = "proposal_generator" not in self.cfg.model  # the classes of a second stage start anew
            if not resumes and one_stage and (kept := classes_kept(self.start, self.data.class_names, new_classes)):
                yield kept
            yield self._recipe(self.data.images["train"], self.start)

    def _recipe(self, images: int, start: Start) -> str:
        """The recipe in one sentence, each choice with what changes it."""
        cfg = self.cfg
        batch = cfg.dataloader.train.total_batch_size
        epochs = cfg.train.max_iter * batch / images
        drawn = _drawn(cfg)
        sizes = f"shorter side {drawn} (--image-size)" if drawn else "image sizes of the config"
        frozen = _frozen(cfg.model)
        learns = f"the first {frozen} stages of the backbone frozen" if frozen else "all of the backbone learns"
        parts = [
            f"{cfg.train.max_iter} iterations of {batch} images, {epochs:.3g} epochs (--epochs)",
            f"learning rate {cfg.optimizer.lr:.2g} (optimizer.lr)",
            sizes,
            *([] if frozen is None else [f"{learns} (model.backbone.bottom_up.freeze_at)"]),
            f"{'averaged' if cfg.train.ema.enabled else 'plain'} weights (train.ema.enabled)",
        ]
        origin = {"scratch": "from scratch", "backbone": "from ImageNet weights", "detector": "from a detector"}
        return f"Recipe for {_TITLES[self.size]} ({images} images) {origin[start.kind]}: {'; '.join(parts)}."


_TITLES = {
    "few": "few images",
    "small": "a small data set",
    "medium": "a data set of medium size",
    "large": "a large data set",
}


def _drawn(cfg: DictConfig) -> str:
    """Sizes of training images, as "160 to 256 pixels"."""
    steps = OmegaConf.select(cfg, "dataloader.train.mapper.augmentations") or ()
    found = next((step.short_edge_length for step in steps if "short_edge_length" in step), None)
    if found is None:
        return ""
    sizes = [found] if isinstance(found, int) else list(found)
    return f"{min(sizes)} to {max(sizes)} pixels" if len(sizes) > 1 else f"{sizes[0]} pixels"


def _frozen(model: DictConfig) -> int | None:
    frozen = OmegaConf.select(model, "backbone.bottom_up.freeze_at")
    return max(frozen, 0) if isinstance(frozen, int) else None


@dataclass(frozen=True)
class TrainingJob:
    """What was asked of `fcos train`, the options by their names; each process makes its config from it."""

    model: str | None = None
    data: Path | None = None
    weights: str | None = None
    iterations: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    batch_size: int | None = None
    image_size: int | None = None
    workers: int | None = None
    device: str | None = None
    val_fraction: float | None = None
    format: str | None = None
    new_classes: bool = False
    loggers: Sequence[str] = ()
    resume: bool = False
    overrides: Sequence[str] = ()
    allow_py: bool = True
    opened: own_data.OwnData | None = field(default=None, repr=False)  # the data set, if it is registered already
    start: Start | None = field(default=None, repr=False)  # what was decided about the weights before
    tell: Callable[[str], Any] | None = field(default=None, repr=False)  # who hears of the start, before all else

    def config(self, output: Path) -> tuple[DictConfig, own_data.OwnData | None]:
        """The complete config, and the user's data set, registered in this process; raises as `plan`."""
        plan = self.plan(output)
        return plan.cfg, plan.data

    def plan(self, output: Path) -> Plan:
        """The complete config, and what was chosen for it; all processes must call it.

        Raises FcosError if the model, the data, the weights or an override is wrong.
        """
        if self.minutes is not None and self.data is not None:
            return fit_to_time(self, output)
        plan = self._of_data() if self.data else self._of_config()
        plan.cfg.train.update(output_dir=str(output), pictures=True)
        if self.loggers:
            plan.cfg.train.loggers = list(self.loggers)
        cfg = apply_lazy(plan.cfg, [text for text in self.overrides if not own_data.is_yacs_key(text)])
        return replace(plan, cfg=cfg, image_size=own_data.image_size_of(cfg))

    def on_gpu(self) -> bool:
        """Whether training is not on the CPU."""
        return (self.device or ("cuda" if torch.cuda.is_available() else "cpu")).partition(":")[0] != "cpu"

    def _of_config(self) -> Plan:
        """Of a config that names its data itself."""
        model = str(self.model)
        cfg = own_data.lazy_config(model, self.overrides, allow_py=self.allow_py)
        own_data.require_nodes(cfg)
        for key, value in (
            ("train.init_checkpoint", "" if self.weights == "none" else self.weights),
            ("train.max_iter", self.iterations),
            ("train.device", self.device),
            ("train.init_classes", "drop" if self.new_classes else None),
            ("dataloader.train.total_batch_size", self.batch_size),
            ("dataloader.train.num_workers", self.workers),
            ("dataloader.test.num_workers", self.workers),
        ):
            if value is not None:
                OmegaConf.update(cfg, key, value)
        return Plan(cfg, model=model)

    def _of_data(self) -> Plan:
        model, cfg, start = self._model_and_start()
        if self.tell is not None:
            self.tell(start.said)
        data = self.opened or own_data.open_data(self.data or "", self.val_fraction, ("train", "val"), self.format)
        size, preset = choose_preset(start.kind, data.images["train"])
        sizes = IMAGE_SIZES["cuda" if self.on_gpu() else "cpu"]
        if (own_data.image_size_of(cfg) or 0) <= max(sizes) or start.kind == "scratch":
            preset = replace(preset, image_size=choose_size(DatasetCatalog.get(data.names.train or ""), sizes))
        else:
            preset = replace(preset, image_size=None)
        if start.kind == "detector" and zoo.published(start.weights):
            preset = replace(preset, lr=preset.careful_lr)
        numbers = ("image_size", "batch_size", "iterations", "epochs", "workers", "device")
        own_data.adapt(
            cfg, data.names, data.class_names, train_images=data.images["train"], weights=start.weights, preset=preset,
            **{name: getattr(self, name) for name in numbers},
        )  # fmt: skip
        if start.kind == "detector" or self.new_classes:
            cfg.train.init_classes = "drop" if self.new_classes else "match"
        return Plan(cfg, data, model, start, size, preset, sized=self.image_size or preset.image_size)

    def _model_and_start(self) -> tuple[str, DictConfig, Start]:
        """What is trained, and from which weights: the first process decides, since others may see another network."""
        model, weights, skipped = self.model, self.weights, ""
        if model is None and weights not in (None, "none"):
            model = model_of(str(weights))
        models = [model] if model else list(DEFAULT_MODELS["cuda" if self.on_gpu() else "cpu"])
        while True:
            model = models.pop(0)
            cfg = own_data.lazy_config(model, self.overrides, allow_py=self.allow_py)
            own_data.require_nodes(cfg)
            start = self.start
            if start is None and comm.is_main_process():
                start = choose_start(weights, model, cfg, self.overrides)
            start = comm.all_gather(start)[0]
            assert start is not None
            if not models or start.kind != "scratch" or weights == "none":
                return model, cfg, replace(start, said=start.said + skipped)
            skipped = f" {model} is left out: {start.why}."

    def as_before(self, folder: Path) -> TrainingJob:
        """The same for a training that goes on: what was chosen then holds, unless something else is asked for now.

        Args:
            folder: what the interrupted training has written.
        """
        known = comm.all_gather(_chosen(folder))[0] if self.data is not None else {}
        given: dict[str, Any] = {name: known.get(name) for name in ("model", "weights", "image_size", "batch_size")}
        given = {name: value for name, value in given.items() if getattr(self, name) is None}
        if self.iterations is None and self.epochs is None:
            given["iterations"] = known.get("iterations")
        if known.get("start") in PRESETS and self.weights in (None, known.get("weights")):
            weights = known["weights"]
            said = f"Training goes on, which started from {'scratch' if weights == 'none' else weights}."
            given["start"] = Start(known["start"], "" if weights == "none" else weights, said)
        return replace(self, **given, minutes=None) if known else self


def _chosen(folder: Path) -> dict[str, Any]:
    """What RECIPE says; of a training without it, what its last checkpoint tells. Empty if there is neither."""
    found: dict[str, Any] = {}
    with suppress(OSError, ValueError, TypeError):
        found = dict(json.loads((folder / RECIPE).read_text(encoding="utf-8")))
    with suppress(OSError, FcosError, AttributeError):
        last = str(folder / (folder / "last_checkpoint").read_text(encoding="utf-8").strip())
        if not found:
            cfg = own_data.lazy_config(last)
            size = own_data.image_size_of(cfg)
            found = {"iterations": int(cfg.train.max_iter), "image_size": size if size and size <= 512 else None}
        if Path(found.get("model", last)).suffix in CHECKPOINTS:  # whose file may be gone; this has the same config
            found["model"] = last
    return found


def configure(
    data: str | Path, model: str | None = None, *, weights: str | None = None, output: str | Path | None = None,
    **options: Any,
) -> DictConfig:  # fmt: skip
    """The config with which `fcos train --data DIR` trains, for `LazyTrainer`.

    Args:
        data: folder with images and labels, or a .zip of one; its data set is registered in this process.
        model: a variant, a config file, or a checkpoint; by default that of the weights, else one that suits the
            device.
        weights: checkpoint, address or variant to start from; "none": from scratch; by default COCO weights of the
            variant where they can be had, else ImageNet weights of its backbone, else none.
        output: folder for the results; by default output/NAME.
        options: those of the command, by their names: epochs, iterations, minutes, batch_size, image_size (pixels),
            workers, device, val_fraction, format (of the data; by default what it looks like), new_classes, loggers,
            and overrides, a list of `key=value`.
    Raises:
        FcosError: the model, the data, the weights, an option or an override is wrong; one sentence.
    """
    job = TrainingJob(model=model, data=Path(data), weights=weights, **options)
    return job.plan(default_folder(job.data, model) if output is None else Path(output)).cfg
