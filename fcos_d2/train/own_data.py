"""A user's folder of images -> the config that trains on it.

`open_data` registers the folder and learns its classes, `adapt` edits the nodes of a LazyConfig for it. How to train
is a row of `presets.PRESETS`, not a branch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog
from detectron2.solver import WarmupParamScheduler
from detectron2.solver.build import get_default_optimizer_params
from fvcore.common.param_scheduler import CosineParamScheduler
from omegaconf import DictConfig, OmegaConf

from ..config.edits import class_node, freeze, has_frozen_norms, only_proposes, resize, thaw
from ..config.load import load_config
from ..config.translate import lazy_of_yacs
from ..data import DatasetNames, class_names, find_dataset, register
from ..data.images import complaint, frame_sizes, open_image, rgb
from ..devices import cores
from ..errors import FcosError
from ..paths import config_root
from ..weights.fetch import is_address
from ..weights.read import load
from .presets import Preset, choose_preset

__all__ = [
    "OwnData", "adapt", "check_classes", "check_images", "default_workers", "holds_config", "image_size_of",
    "is_yacs_key", "lazy_config", "open_data", "require_nodes",
]  # fmt: skip

_PARTS = {"train", "test"}  # of `dataloader`; a config may do without test data


@dataclass(frozen=True)
class OwnData:
    """A user's data set in Detectron2's catalog."""

    folder: Path
    names: DatasetNames
    class_names: tuple[str, ...]
    images: dict[str, int]  # of each part
    boxes: dict[str, int]  # of each part, crowd regions aside

    def described(self) -> str:
        """What is in it, in one sentence."""
        parts = ", ".join(f"{count} {part} images with {self.boxes[part]} boxes" for part, count in self.images.items())
        return f"{self.folder}: {len(self.class_names)} classes ({_some(self.class_names)}); {parts}."


def open_data(
    folder: str | Path, val_fraction: float | None = None, need: Sequence[str] = ("train", "val"),
    format: str | None = None,
) -> OwnData:  # fmt: skip
    """Find, check and register the data set in a folder, in each process of a training.

    See `data.register`, and for the format `data.find_dataset`.
    """
    layout = find_dataset(folder, format)
    prefix = re.sub(r"[^\w-]+", "_", layout.root.resolve().name) or "data"
    names = register(layout, prefix, val_fraction, need, numbered=True)
    there = {part: name for part, name in vars(names).items() if name is not None}
    records = {part: DatasetCatalog.get(name) for part, name in there.items()}
    boxes = {
        part: sum(not box.get("iscrowd", 0) for record in rows for box in record["annotations"])
        for part, rows in records.items()
    }
    classes = tuple(class_names(next(iter(there.values()))))
    return OwnData(layout.root, names, classes, {part: len(rows) for part, rows in records.items()}, boxes)


def require_nodes(
    cfg: DictConfig, names: Sequence[str] = ("model", "dataloader", "optimizer", "lr_multiplier", "train")
) -> None:
    """Raise FcosError if a config lacks one of these nodes."""
    for name in names:
        if not isinstance(cfg.get(name), DictConfig):
            raise FcosError(f"The config has no node '{name}', so it can be neither trained nor evaluated.")


def adapt(
    cfg: DictConfig, names: DatasetNames, class_names: Sequence[str], *, train_images: int, weights: str | None = None,
    image_size: int | None = None, batch_size: int | None = None, iterations: int | None = None,
    epochs: float | None = None, workers: int | None = None, device: str | None = None, preset: Preset | None = None,
) -> DictConfig:  # fmt: skip
    """Edit a LazyConfig so that it trains on a data set of one's own.

    Args:
        cfg: with the nodes of `compose`; changed in place, and returned.
        names, class_names: of the data set; val is evaluated on, train where there is none.
        train_images: number of images in the train part, which turns epochs into iterations.
        weights: checkpoint to start from; "" starts from scratch, None from what the config says.
        image_size: shorter side of an image, pixels; see `config.edits.resize`.
        iterations, epochs: length of training; one of them.
        workers: processes that load images; by default half of the cores, 4 at most.
        device: e.g. "cuda"; by default what the machine has.
        preset: how to train; by default the row of `PRESETS` for a detector, or without weights for none, and for the
            number of images. What is None above is taken from it.
    Raises:
        FcosError: the config lacks a node, or a number is out of range.
    """
    require_nodes(cfg)
    if weights is not None:
        cfg.train.init_checkpoint = weights
    if preset is None:
        _, preset = choose_preset("detector" if cfg.train.init_checkpoint else "scratch", train_images)
    batch_size = batch_size or preset.batch_size
    if epochs is not None and (iterations is not None or epochs <= 0):
        wrong = f"are {epochs:g}; they must be more than 0" if iterations is None else "and iterations are both given"
        raise FcosError(f"The epochs {wrong}{'' if iterations is None else ': give one of them'}.")
    if iterations is None:
        passes, least = (preset.epochs, preset.least_iterations) if epochs is None else (epochs, 1)
        iterations = max(math.ceil(passes * train_images / batch_size), least)
    for name, value, least in (
        ("image size", image_size, 32), ("iterations", iterations, 1), ("batch size", batch_size, 1),
        ("number of workers", workers, 0),
    ):  # fmt: skip
        if value is not None and value < least:
            raise FcosError(f"The {name} is {value}; it must be at least {least}.")
    _edit_model(cfg.model, len(class_names), preset, from_scratch=not cfg.train.init_checkpoint)
    _edit_data(cfg.dataloader, names, image_size or preset.image_size, preset, asked=image_size is not None)
    cfg.dataloader.train.total_batch_size = batch_size
    workers = default_workers() if workers is None else workers
    for part in _PARTS & cfg.dataloader.keys():
        cfg.dataloader[part].num_workers = workers
    _edit_solver(cfg, preset, batch_size, iterations)
    cfg.train.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return cfg


def lazy_config(source: str, overrides: Sequence[str] = (), *, allow_py: bool = True) -> DictConfig:
    """The LazyConfig that a source of `load_config` stands for; the YAML twin of a variant stands for the variant.

    YAML keys of Detectron2 are translated; before that, those of the overrides that name such keys are applied. Raises
    FcosError if there is no config, or a key cannot be translated.
    """
    path, twins = Path(source), config_root() / "yaml"
    keys = [text for text in overrides if is_yacs_key(text)]
    if not keys and path.suffix in (".yaml", ".yml") and path.is_file() and twins in path.resolve().parents:
        return load_config(config_root() / path.resolve().relative_to(twins).with_suffix(".py"))
    cfg = load_config(source, keys, allow_py=allow_py)
    return cfg if isinstance(cfg, DictConfig) else lazy_of_yacs(cfg)


def is_yacs_key(override: str) -> bool:
    """Whether an override names one of Detectron2's YAML keys, as in SOLVER.BASE_LR=0.01."""
    key = override.partition("=")[0]
    return "." in key and key == key.upper()


def default_workers() -> int:
    """Processes that load images where nobody says how many."""
    return min(4, cores() // 2)


def _edit_model(model: DictConfig, num_classes: int, preset: Preset, from_scratch: bool) -> None:
    if (node := class_node(model)) is not None:
        node.num_classes = num_classes
    elif not only_proposes(model):
        raise FcosError("The config's model has no 'num_classes', so it is not one of fcos_d2's.")
    if preset.pixel_std is not None and "pixel_std" in model:
        std = preset.pixel_std if model.get("input_format", "BGR") == "BGR" else preset.pixel_std[::-1]
        model.pixel_std = list(std)
    if from_scratch:
        thaw(model)
    elif preset.freeze is not None:
        freeze(model, preset.freeze)


def _edit_solver(cfg: DictConfig, preset: Preset, batch_size: int, iterations: int) -> None:
    """Optimizer, learning rate, and what happens how often."""
    params = L(get_default_optimizer_params)(
        base_lr="${..lr}", weight_decay_norm=0.0, weight_decay_bias=0.0, bias_lr_factor=1.0
    )
    lr = (preset.careful_lr if has_frozen_norms(cfg.model) else preset.lr) * math.sqrt(batch_size / preset.batch_size)
    cfg.optimizer = L(torch.optim.AdamW)(params=params, lr=lr, weight_decay=preset.weight_decay)
    cfg.lr_multiplier = L(WarmupParamScheduler)(
        scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=0.01), warmup_length=preset.warmup,
        warmup_method="linear", warmup_factor=0.02,
    )  # fmt: skip
    period = math.ceil(iterations / preset.evaluations)
    cfg.train.update(
        max_iter=iterations, clip_grad=preset.clip_grad, log_period=min(20, max(1, iterations // 50)),
        eval_period=period, checkpointer={"period": period, "max_to_keep": 1},
    )  # fmt: skip
    if preset.ema is not None:
        OmegaConf.update(cfg, "train.ema.enabled", preset.ema)


def _edit_data(dataloader: DictConfig, names: DatasetNames, size: int | None, preset: Preset, asked: bool) -> None:
    """Data sets, and the size of images.

    Raises FcosError if a size that the user `asked` for cannot be set.
    """
    dataloader.train.dataset.names = names.train
    dataloader.train.dataset.filter_empty = False  # an image without objects says what objects do not look like
    if "test" in dataloader:
        dataloader.test.dataset.names = names.val or names.train
    for part in _PARTS & dataloader.keys() if size else ():
        augmentations = dataloader[part].get("mapper", {}).get("augmentations") or []
        if not resize(augmentations, size or 0, preset.scales if part == "train" else ()) and asked:
            raise FcosError(
                f"The image size {size} cannot be set: dataloader.{part}.mapper.augmentations has none of Detectron2's "
                "ResizeShortestEdge, ResizeScale and Resize; change the config itself."
            )


def image_size_of(cfg: DictConfig) -> int | None:
    """Shorter side of test images, in pixels; None where no augmentation of Detectron2's sets it."""
    steps = OmegaConf.select(cfg, "dataloader.test.mapper.augmentations") or ()
    sizes = [step.get("short_edge_length") for step in steps if isinstance(step, DictConfig)]
    found = next((size for size in sizes if size is not None), None)
    return found if isinstance(found, int) else max(found) if found else None


def holds_config(weights: str) -> bool:
    """Whether a checkpoint file says how its model was made."""
    return not is_address(weights) and isinstance(load(weights).get("config"), str)


def check_classes(weights: str, class_names: Sequence[str], wanted_by: str, remedy: str, some: bool = False) -> None:
    """Raise FcosError if a checkpoint, by file or address, says that it was trained for other classes.

    The message says that `wanted_by` ("the data set shapes") wants these, in this order, and what is the `remedy`.
    With `some`, weights of more classes, or in another order, will do.
    """
    known = None if is_address(weights) else load(weights).get("class_names")
    listed = isinstance(known, (list, tuple)) and all(isinstance(name, str) for name in known)
    if not known or not listed or list(known) == list(class_names) or (some and set(class_names) <= set(known)):
        return
    differing = [f"{there!r} where that has {here!r}" for there, here in zip(known, class_names) if there != here]
    difference = f"other classes than {wanted_by} has: {differing[0]}" if differing else ""
    if len(known) != len(class_names):
        wanted = f"{wanted_by} has {len(class_names)} ({_some(class_names)})"
        difference = f"{len(known)} classes ({_some(known)}), but {wanted}"
    raise FcosError(f"{weights} was trained for {difference}; {remedy}.")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


def check_images(names: Iterable[str], progress: Callable[[int, int], Any] = lambda done, total: None) -> None:
    """Read images of registered data sets once, 20,000 at most, so that a bad one is found before hours of training.

    Calls `progress(done, total)`. Raises FcosError if images cannot be read, or have another size than is written.
    """
    records = [record for name in names for record in DatasetCatalog.get(name)][:20_000]
    faults = []
    with ThreadPoolExecutor(max(2, min(8, cores()))) as pool:
        for done, (record, fault) in enumerate(zip(records, pool.map(_fault, records)), start=1):
            if fault:
                faults.append(f"{record['file_name']} ({fault})")
            progress(done, len(records))
    if faults:
        others = f", and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise FcosError(
            f"{len(faults)} of {len(records)} images are unusable: {', '.join(faults[:3])}{others}; mend them, or take "
            "them out of the annotations."
        )


def _fault(record: dict[str, Any]) -> str:
    """What is wrong with the image of a data set's record; empty if nothing is."""
    try:
        with open_image(record["file_name"]) as image:
            stored, size = frame_sizes(image)
            if image.format == "JPEG":
                image.draft("RGB", (size[0] // 8, size[1] // 8))  # it is read whole, but made small
                image.load()
            else:
                rgb(image)
    except FcosError as error:
        return str(error).removeprefix("An image ").rstrip(".")
    except Exception as error:  # Pillow's plugins raise anything
        return complaint(error, record["file_name"]).removeprefix("it is ")
    expected = record.get("width", size[0]), record.get("height", size[1])
    turned = "" if size == stored else ", turned as its EXIF orientation says"
    fault = f"has {size[0]}x{size[1]} pixels{turned}, the annotations say {expected[0]}x{expected[1]}"
    return fault if size != expected else ""
