"""Evaluation of a config's data sets, and what training and evaluation share about data sets."""

from __future__ import annotations

import copy
import itertools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset, print_csv_format
from detectron2.utils import comm
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from .._compat import wrap_mapper
from ..config.overrides import suggestion
from ..data.loader import NamedMapper
from ..errors import FcosError
from ..files import write_json
from .scores import shares

__all__ = [
    "build_evaluator", "build_loader", "build_test_loader", "check_evaluation", "data_class_names", "data_names",
    "evaluate", "test_sets", "write_results",
]  # fmt: skip

logger = logging.getLogger("fcos_d2")


def evaluate(
    model: nn.Module,
    names: Sequence[str | None],
    loader_of: Callable[[Any], Any],
    evaluator_of: Callable[[Any], Any],
    evaluators: Sequence[DatasetEvaluator] | DatasetEvaluator | None = None,
    done: Callable[[Any], Any] = lambda evaluator: None,
) -> dict[str, Any]:
    """Run a model on data sets, one after the other; all processes must call it.

    Args:
        model: not wrapped for distributed training.
        names: of the data sets.
        loader_of, evaluator_of: make the loader and the evaluator of one of them.
        evaluators: instead of `evaluator_of`, one for each data set.
        done: is given the evaluator of each data set after its evaluation, in the first process.
    Returns:
        E.g. {"bbox": {"AP": 31.4, "AP50": ...}}, from 0 to 100 as Detectron2 has it; with several data sets, that for
        each name. Empty in processes other than the first.
    Raises:
        FcosError: the data cannot be loaded, or an image cannot be read.
    """
    given = [evaluators] if isinstance(evaluators, DatasetEvaluator) else evaluators
    if given is not None and len(given) != len(names):
        raise FcosError(f"There are {len(given)} evaluators for {len(names)} data sets: give one for each.")
    results: dict[str, Any] = {}
    for i, name in enumerate(names):
        loader = loader_of(name)
        try:
            evaluator = evaluator_of(name) if given is None else given[i]
        except NotImplementedError:
            logger.warning("There is no evaluator for %s: override build_evaluator, or pass evaluators.", name)
            continue
        found = inference_on_dataset(model, loader, list(evaluator) if isinstance(evaluator, ListConfig) else evaluator)
        if comm.is_main_process():
            logger.info("Evaluation of %s, AP from 0 to 100:", name)
            print_csv_format(found)
            results[str(name)] = found
            done(evaluator)
    return next(iter(results.values())) if len(results) == 1 else results


def write_results(results: dict[str, Any], output_dir: str, iteration: int | None) -> None:
    """Let the first process write evaluation.json, AP from 0 to 1, with the iteration of the weights if it is known."""
    if comm.is_main_process() and output_dir:
        write_json(Path(output_dir) / "evaluation.json", {"iteration": iteration, **shares(results)})


# The nodes of a LazyConfig


def test_sets(cfg: DictConfig) -> list[str | None]:
    """What `dataloader.test` evaluates on, one by one: names, or None for a data set without one.

    Several names are one data set each if `dataloader.evaluator` names them, too; else the loader joins them.
    """
    nodes = cfg.get("dataloader", {})
    if nodes.get("test") is None or nodes.get("evaluator") is None:
        logger.warning("The config has no dataloader.test or no dataloader.evaluator: nothing is evaluated.")
        return []
    names = OmegaConf.select(cfg, "dataloader.test.dataset.names")
    if isinstance(names, (ListConfig, list, tuple)) and "dataset_name" in nodes.evaluator:
        return list(names)
    return [names if isinstance(names, str) else None]


test_sets.__test__ = False  # type: ignore[attr-defined]  # no test of pytest's


def build_test_loader(cfg: DictConfig, name: str | None) -> Any:
    """The loader of a data set, as `dataloader.test` says; errors name the image."""
    loader = build_loader(_for(cfg, name).test)
    wrap_mapper(loader, NamedMapper)
    return loader


def build_evaluator(cfg: DictConfig, name: str | None) -> Any:
    """The evaluator of a data set, as `dataloader.evaluator` says, or several."""
    node = _for(cfg, name).evaluator
    for one in node if isinstance(node, ListConfig) else [node]:
        _require_registered(isinstance(one, DictConfig) and one.get("dataset_name"))
    return instantiate(node)


def _for(cfg: DictConfig, name: str | None) -> DictConfig:
    """The node `dataloader`, for one of its test sets."""
    nodes = copy.deepcopy(cfg).dataloader
    if name is not None:
        nodes.test.dataset.names = name
        if "dataset_name" in nodes.evaluator:
            nodes.evaluator.dataset_name = name
    return nodes


def build_loader(node: DictConfig) -> Any:
    """Instantiate a data loader; what is wrong with the data is one sentence.

    Raises:
        FcosError: there is no such data set, a file of it is missing, no image is usable, or the batch cannot be shared
            among processes.
    """
    _require_registered(OmegaConf.select(node, "dataset.names"))
    try:
        return instantiate(node)
    except FileNotFoundError as error:
        raise FcosError(
            f"The data set needs {error.filename or error}, which does not exist; Detectron2's own data sets are "
            "looked for in the folder that DETECTRON2_DATASETS names."
        ) from error
    except AssertionError as error:  # how Detectron2 says that there is no image, or about batch sizes
        raise FcosError(f"The data cannot be loaded: {str(error).rstrip('.')}.") from error


def data_class_names(cfg: DictConfig | CfgNode, parts: Sequence[str] = ("train", "test")) -> list[str] | None:
    """Class names of the first part of the data that a config names; None if there is none, or it has no classes.

    Raises:
        FcosError: Detectron2's catalog has no such data set.
    """
    for part in parts:
        if (name := next(iter(data_names(cfg, part)), None)) is None:
            continue
        _require_registered(name)
        if known := MetadataCatalog.get(name).get("thing_classes"):
            return list(known)
    return None


def data_names(cfg: DictConfig | CfgNode, part: str) -> list[str]:
    """Names of the data sets, "train" or "test", that a config of either system names."""
    if isinstance(cfg, CfgNode):
        names = cfg.DATASETS[part.upper()]
    else:
        names = OmegaConf.select(cfg, f"dataloader.{part}.dataset.names")
    return [names] if isinstance(names, str) else [name for name in names or () if isinstance(name, str)]


def _require_registered(names: Any) -> None:
    """Raise FcosError if Detectron2's catalog lacks a data set, or one of several."""
    known = DatasetCatalog.list()
    for name in [names] if isinstance(names, str) else names or ():
        if name not in known:
            end = suggestion(name, known)
            hint = "; register it first." if end == "." else end
            raise FcosError(f"There is no data set named {name!r} in Detectron2's catalog{hint}")


def check_evaluation(
    names: Sequence[str | None],
    loader_of: Callable[[Any], Any],
    evaluator_of: Callable[[Any], Any],
    class_names: Sequence[str] | None = None,
) -> None:
    """Build what `evaluate` will need, and read the first image of each data set: before training, not after it.

    Args:
        names, loader_of, evaluator_of: as of `evaluate`.
        class_names: of the training data.
    Raises:
        FcosError: a data set is unknown, has no images or other classes, or its evaluator cannot be built.
    """
    for name in names:
        data: Any = getattr(loader_of(name), "dataset", None)
        if hasattr(data, "__getitem__") and hasattr(data, "__len__") and len(data):
            _ = data[0]
        try:
            evaluator_of(name)
        except FcosError:
            raise
        except NotImplementedError:  # `evaluate` passes over it
            continue
        except Exception as error:  # whatever an evaluator of the user's does
            reason = " ".join(str(error).split()).rstrip(".")
            raise FcosError(f"The evaluator of {name} cannot be built ({type(error).__name__}: {reason}).") from error
        theirs = (name and MetadataCatalog.get(name).get("thing_classes")) or ()
        if class_names and theirs and (len(theirs) != len(class_names) or set(theirs) == set(class_names)):
            for i, (there, here) in enumerate(itertools.zip_longest(theirs, class_names)):
                if there != here:
                    raise FcosError(
                        f"The test set {name} has {len(theirs)} classes, the training data {len(class_names)}; number "
                        f"{i} is {there!r} there and {here!r} here: evaluation needs the same ones in the same order."
                    )
