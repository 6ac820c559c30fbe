"""Where a config comes from: a LazyConfig (.py), a YAML file, a checkpoint, or a variant by its name."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from omegaconf import DictConfig, OmegaConf

from .. import zoo
from .._compat import load_lazy_config
from ..errors import FcosError
from ..genotype import inlined
from ..modeling.backbone import BACKBONES
from ..paths import CHECKPOINTS, is_address, require_config
from .overrides import apply_lazy, apply_yacs
from .plain import nodes
from .stored import Config, parse_config
from .train_options import TRAIN_OPTIONS, TrainOptions
from .tta import TTA_DEFAULTS, tta_of
from .yacs import read_text, sentence

__all__ = ["CHECKPOINTS", "TEXT_OF", "is_code", "is_data", "is_file", "load_config", "unsaid"]

_YAML = (".yaml", ".yml")
# Where a head has its genotype: of a detector, of proposals, and in Detectron2's keys.
_GENOTYPES = (
    "model.dense.head.genotype", "model.proposal_generator.dense.head.genotype", "model.keys.MODEL.FCOS.FAD_GENOTYPE",
)  # fmt: skip
# How to get the stored config out of a file, by its suffix; rooms that read such files fill it.
TEXT_OF: dict[str, Callable[[Path], str]] = {}


def load_config(
    source: str | Path, overrides: Sequence[str] = (), *, allow_py: bool = True,
    text_of: Callable[[Path], str] | None = None,
) -> Config:  # fmt: skip
    """Read a config and apply overrides strictly.

    A .py file is code and runs; everything else is data, of which nothing runs (see `stored`). Where it names a file of
    a genotype, the text of that file takes its place; a checkpoint holds the text.

    Args:
        source: a LazyConfig (.py), a YAML file, a checkpoint that holds its config, or the name of a variant.
        overrides: `key=value` each; for YAML configs `KEY`, `VALUE` pairs, too.
        allow_py: whether .py files are read.
        text_of: gets the config out of a checkpoint; by default it is read for that alone.
    Returns:
        A `DictConfig`, with all `TRAIN_OPTIONS` if it has a node `train`; for Detectron2's YAML keys a `CfgNode`.
    Raises:
        FcosError: there is no such file or variant, or its content or an override is wrong; one sentence.
    """
    if is_code(source) and not allow_py:
        raise FcosError(f"{source} is Python, which runs when it is read: leave out --no-py, or give a YAML file.")
    cfg = _read(str(source), text_of)
    reads = _keep if Path(source).suffix.lower() in CHECKPOINTS else inlined
    if isinstance(cfg, CfgNode):
        cfg = apply_yacs(cfg, overrides)
        cfg.MODEL.FCOS.FAD_GENOTYPE = reads(cfg.MODEL.FCOS.FAD_GENOTYPE)
        return cfg
    if isinstance(cfg.get("train"), DictConfig):
        _fill(cfg.train, TRAIN_OPTIONS)
    if isinstance(cfg.get("tta"), DictConfig):
        _fill(cfg.tta, TTA_DEFAULTS)
    cfg = apply_lazy(cfg, overrides)
    for key in _GENOTYPES:
        if isinstance(value := OmegaConf.select(cfg, key), str):
            OmegaConf.update(cfg, key, reads(value))
    if "train" in cfg:
        TrainOptions.of(cfg.train, f"The config {source}")
    tta_of(cfg)
    return cfg


def _keep(value: str) -> str:
    return value


def is_code(source: str | Path) -> bool:
    """Whether reading a config runs it."""
    return Path(source).suffix.lower() == ".py"


def is_data(source: str | Path) -> bool:
    """Whether a config is read without running anything: a YAML file, or what a checkpoint holds."""
    return Path(source).suffix.lower() in (*_YAML, *CHECKPOINTS)


def is_file(source: str | Path) -> bool:
    """Whether it is a config file, rather than a checkpoint or the name of a variant."""
    return is_code(source) or Path(source).suffix.lower() in _YAML


def unsaid(weights: str | Path) -> str:
    """What is wrong with weights whose detector nobody names, as a sentence."""
    return (
        f"{weights} does not say what detector it is of: name its variant or config (--model NAME; `fcos zoo` lists "
        "them), and give the file as the weights."
    )


def _read(source: str, text_of: Callable[[Path], str] | None) -> Config:
    path = Path(source).expanduser()
    known = is_code(source) or is_data(source)
    if is_address(source) or (not known and path.is_file()):
        raise FcosError(unsaid(source))
    if not known:
        return zoo.get_config(source)
    require_config(source)
    if is_code(source):
        return _python(path)
    if not is_file(source):
        text = (text_of or TEXT_OF[path.suffix.lower()])(path)
        return _without_paths(parse_config(text, f"The checkpoint {source}"))
    return parse_config(read_text(path), source, path)


def _without_paths(cfg: Config) -> Config:
    """The config of a checkpoint without files and folders of whoever wrote it; addresses of our backbones stay."""
    known = {row.weights for row in BACKBONES.values()}
    if isinstance(cfg, CfgNode):
        cfg.OUTPUT_DIR = "./output"
        cfg.MODEL.WEIGHTS = cfg.MODEL.WEIGHTS if cfg.MODEL.WEIGHTS in known else ""
        return cfg
    if isinstance(train := cfg.get("train"), DictConfig):
        train.pop("output_dir", None)
        if OmegaConf.select(train, "init_checkpoint") not in known:
            train.pop("init_checkpoint", None)
    tree = OmegaConf.to_container(cfg, resolve=False)
    for _, node in nodes(tree):
        if isinstance(node, dict) and "_target_" in node:  # an evaluator would write there
            node.pop("output_dir", None)
    return OmegaConf.create(tree, flags={"allow_objects": True})


def _python(path: Path) -> DictConfig:
    try:
        cfg = load_lazy_config(path)
    except FcosError:
        raise
    except SyntaxError as error:
        cause = error.__cause__ if isinstance(error.__cause__, SyntaxError) else error
        raise FcosError(f"The config file {path} is not Python: {cause.msg} (line {cause.lineno}).") from error
    except Exception as error:  # whatever a config file does while it runs
        raise FcosError(f"The config file {path} cannot be loaded: {sentence(error)}") from error
    if "model" not in cfg:
        held = ", ".join(map(str, cfg)) or "no configs"
        raise FcosError(f"The config file {path} defines no 'model'; it has: {held}.")
    return cfg


def _fill(node: DictConfig, defaults: Mapping[str, Any]) -> None:
    for key, value in defaults.items():
        if key not in node:
            node[key] = copy.deepcopy(value)
        elif isinstance(value, Mapping) and isinstance(node[key], DictConfig):
            _fill(node[key], value)
