"""Evaluation of a LazyConfig's data, and what training and evaluation share about data sets."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from ..data.stream import name_images
from ..errors import FcosError
from ..files import write_atomically

__all__ = ["build_loader", "data_class_names", "evaluate"]

logger = logging.getLogger("fcos_d2")


def evaluate(cfg: DictConfig, model: nn.Module, output_dir: str = "", iteration: int = 0) -> dict[str, Any]:
    """Run a model on `dataloader.test` with `dataloader.evaluator`; all processes must call it.

    Args:
        cfg: with both nodes; without them a warning is all.
        model: not wrapped for distributed training.
        output_dir: gets evaluation.json, unless empty.
        iteration: of the weights, noted there.
    Returns:
        E.g. {"bbox": {"AP": 31.4, "AP50": ...}}, in percent; empty in processes other than the first.
    Raises:
        FcosError: the data cannot be loaded, or an image cannot be read.
    """
    nodes = cfg.get("dataloader", {})
    if "test" not in nodes or "evaluator" not in nodes:
        logger.warning("The config has no dataloader.test or no dataloader.evaluator: nothing is evaluated.")
        return {}
    loader = name_images(build_loader(nodes.test))
    evaluator = instantiate(nodes.evaluator)
    evaluator = list(evaluator) if isinstance(evaluator, (ListConfig, list)) else evaluator
    results = inference_on_dataset(model, loader, evaluator)
    if comm.is_main_process():
        print_csv_format(results)
        if output_dir:
            text = json.dumps({"iteration": iteration, **_finite(results)}, indent=2)
            write_atomically(Path(output_dir) / "evaluation.json", lambda file: file.write(text.encode()))
    return results


def build_loader(node: DictConfig) -> Any:
    """Instantiate a data loader; what is wrong with the data is one sentence.

    Raises:
        FcosError: a file of the data set is missing, no image is usable, or the batch cannot be shared among processes.
    """
    try:
        return instantiate(node)
    except FileNotFoundError as error:
        raise FcosError(
            f"The data set needs {error.filename or error}, which does not exist; Detectron2's own data sets are "
            "looked for in the folder that DETECTRON2_DATASETS names."
        ) from error
    except AssertionError as error:  # how Detectron2 says that there is no image, or about batch sizes
        raise FcosError(f"The data cannot be loaded: {str(error).rstrip('.')}.") from error


def data_class_names(cfg: DictConfig, parts: Sequence[str] = ("train", "test")) -> list[str] | None:
    """Class names of the data sets that a config names; None if it names none, or these have no classes.

    Args:
        cfg: with `dataloader.<part>.dataset.names`.
        parts: of the dataloader; the first with names counts.
    Raises:
        FcosError: Detectron2's catalog has no such data set.
    """
    for part in parts:
        names = OmegaConf.select(cfg, f"dataloader.{part}.dataset.names")
        name = names[0] if isinstance(names, (ListConfig, list, tuple)) and names else names
        if not isinstance(name, str):
            continue
        if name not in DatasetCatalog.list():
            raise FcosError(f"There is no data set named {name!r} in Detectron2's catalog; register it first.")
        if known := MetadataCatalog.get(name).get("thing_classes"):
            return list(known)
    return None


def _finite(value: Any) -> Any:
    """The same with None for numbers that JSON cannot hold."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
