"""yacs keys made from the parts' fields, and parts made from yacs nodes.

Every field that names a key (see `options.option`) is the key `MODEL.FCOS.<key>` with the field's default. The few that
are not one to one, because AdelaiDet's keys are kept for its users, are translated in `_translate` and its inverse,
`yaml_of_recipe`.
"""

from __future__ import annotations

import copy
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode as CN
from detectron2.config import downgrade_config, get_cfg, upgrade_config
from detectron2.config.compat import guess_version
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, build_backbone
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from ..errors import FcosError
from ..genotype import inlined, pair_of
from ..modeling.assigner import ASSIGNER_REGISTRY, PointAssigner, size_ranges_from_upper_ends
from ..modeling.backbone import BACKBONE_KEYS
from ..modeling.dense import DenseFCOS
from ..modeling.head import FCOS_HEAD_REGISTRY, FCOSHead
from ..modeling.locations import LocationGrid
from ..modeling.losses import LOSS_REGISTRY, NORMALIZER_REGISTRY, FCOSLoss
from ..modeling.ltrb import LTRBCoder
from ..modeling.selector import SELECTOR_REGISTRY, Selector
from ..options import config_reader, keyed_fields, one_of
from ..zoo.recipes import Recipe
from .overrides import suggestion, yacs_keys
from .plain import check_number, nodes, parse_yaml
from .train_options import TrainOptions
from .tta import add_keys

_PARTS = {
    "grid": LocationGrid, "assigner": PointAssigner, "coder": LTRBCoder, "head": FCOSHead, "loss": FCOSLoss,
    "selector": Selector,
}  # fmt: skip
# Where the classes of parts are registered that a config names: HEAD_NAME, ASSIGNER_NAME and so on.
_REGISTRIES = {
    "head": FCOS_HEAD_REGISTRY, "assigner": ASSIGNER_REGISTRY, "loss": LOSS_REGISTRY, "selector": SELECTOR_REGISTRY,
}  # fmt: skip
# AdelaiDet's names for normalizers of the class loss, besides ours.
_NORMALIZERS = {"fg": "mean_positives", "moving_fg": "moving_mean_positives", "all": "locations"}
# `TrainOptions` for which Detectron2 has keys of its own: SOLVER.MAX_ITER and so on, see `translate.train_of_yacs`.
_DETECTRON2S = {"output_dir", "init_checkpoint", "max_iter", "eval_period", "device", "seed"}
# Keys that `_translate` turns into fields, with AdelaiDet's defaults.
_TRANSLATED: dict[str, Any] = {
    "IN_FEATURES": ["p3", "p4", "p5", "p6", "p7"], "TOP_LEVELS": 2,
    "FPN_STRIDES": [8, 16, 32, 64, 128],  # checked against the backbone
    "SIZES_OF_INTEREST": [64, 128, 256, 512],  # upper ends of all levels but the last
    "CENTER_SAMPLE": True, "POS_RADIUS": 1.5,
    "INCLUSIVE_FAR_CORNER": False, "KEEP_EMPTY": False, "BATCH_INVARIANT": False,  # of the detector
    "BOX_QUALITY": "ctrness", "LOSS_NORMALIZER_CLS": "fg", "MOVING_START": 100.0,
    "BOX_WEIGHT": "auto",  # "centerness", or "none" with another BOX_QUALITY
    "LOSS_NORMALIZER_LOC": "auto",  # "mean_weights", or "mean_positives" with BOX_WEIGHT "none"
    "THRESHOLD_ON": "class",
    "THRESH_WITH_CTR": False,  # True: THRESHOLD_ON "product"
    "INFERENCE_TH_TRAIN": 0.05, "PRE_NMS_TOPK_TRAIN": 1000, "POST_NMS_TOPK_TRAIN": 100,
    "INFERENCE_TH_TEST": 0.05, "PRE_NMS_TOPK_TEST": 1000, "POST_NMS_TOPK_TEST": 100,
    "USE_RELU": True,  # AdelaiDet never reads it; LTRB_ACTIVATION decides
    "YIELD_PROPOSAL": False,  # True serves AdelaiDet's instance segmentation, which is not part of this project
    "YIELD_BOX_FEATURES": False,
    "CLASS_AGNOSTIC": False,  # True, of FCOSProposals: every object is of one class, and NUM_CLASSES does not count
}  # fmt: skip


def add_fcos_config(cfg: CN) -> None:
    """Add `MODEL.FCOS` and the backbones' keys to a Detectron2 config; calling it again changes nothing.

    Args:
        cfg: e.g. from `detectron2.config.get_cfg()`; changed in place.
    """
    if "FCOS" in cfg.MODEL and "HEAD_NAME" in cfg.MODEL.FCOS:
        return
    parts: list[Any] = list(_PARTS.values())  # and every other registered one that declares its options as they do
    parts += [part for registry in _REGISTRIES.values() for _, part in registry if is_dataclass(part)]
    keys: dict[str, Any] = {}
    for part in parts:
        for key, f in keyed_fields(part).items():
            if f.default is not MISSING:
                keys.setdefault(key, f.default)
    keys |= {f"{name.upper()}_NAME": _PARTS[name].__name__ for name in _REGISTRIES} | _TRANSLATED
    keys |= cfg.MODEL.get("FCOS", {})  # keys that another project added before
    cfg.MODEL.FCOS = CN(copy.deepcopy(keys))
    for name, backbone in BACKBONE_KEYS.items():
        node = cfg.MODEL.setdefault(name, CN())
        for key, value in backbone.items():
            node.setdefault(key, copy.deepcopy(value))
    test = cfg.setdefault("TEST", CN())
    test.setdefault("MAX_DETS_PER_IMAGE", ())  # limits of detections for AP, such as (1, 10, 300); (): COCO's
    add_keys(test.setdefault("AUG", CN()))
    node = cfg.setdefault("TRAIN", CN())
    options = TrainOptions().as_dict()
    del options["checkpointer"]["period"], options["amp"]["enabled"]
    for key, value in options.items():
        if key not in _DETECTRON2S:
            inner = CN({k.upper(): v for k, v in value.items()}) if isinstance(value, dict) else value
            node.setdefault(key.upper(), inner)


def _translate(node: CN, train: bool) -> dict[str, dict[str, Any]]:
    """Fields of each part that have no key of their own.

    Args:
        node: `cfg.MODEL.FCOS`.
        train: take the keys that end in TRAIN instead of TEST.
    """
    one_of("MODEL.FCOS.BOX_QUALITY", node.BOX_QUALITY, ("ctrness", "centerness", "iou", "none"))
    quality = node.BOX_QUALITY if node.BOX_QUALITY in ("iou", "none") else "centerness"
    weight, box_normalizer = node.BOX_WEIGHT, node.LOSS_NORMALIZER_LOC
    if weight == "auto":
        weight = "centerness" if quality == "centerness" else "none"
    if box_normalizer == "auto":
        box_normalizer = "mean_weights" if weight == "centerness" else "mean_positives"
    class_normalizer = _NORMALIZERS.get(node.LOSS_NORMALIZER_CLS, node.LOSS_NORMALIZER_CLS)
    one_of("MODEL.FCOS.LOSS_NORMALIZER_CLS", class_normalizer, [n for n, _ in NORMALIZER_REGISTRY] + list(_NORMALIZERS))
    for key in ("YIELD_PROPOSAL", "YIELD_BOX_FEATURES"):
        if node[key]:
            raise ValueError(f"MODEL.FCOS.{key} is True, but only detection is available: set it to False.")
    phase = "TRAIN" if train else "TEST"
    return {
        "assigner": {
            "size_ranges": size_ranges_from_upper_ends(tuple(node.SIZES_OF_INTEREST)),
            "center_radius": float(node.POS_RADIUS) if node.CENTER_SAMPLE else 0.0,
        },
        "head": {
            "num_levels": len(node.IN_FEATURES), "points_per_cell": node.DENSE_POINTS,
            "norm": "GN" if node.NORM == "NaiveGN" else node.NORM,  # the same, written for exporters
            "num_classes": 1 if node.CLASS_AGNOSTIC else node.NUM_CLASSES,
            "quality_on": "none" if quality == "none" else node.QUALITY_ON,
            "genotype": inlined(node.FAD_GENOTYPE),
        },
        "loss": {
            "quality": quality, "box_weight": weight, "moving_start": float(node.MOVING_START),
            "class_normalizer": class_normalizer, "box_normalizer": box_normalizer,
        },
        "selector": {
            "threshold_on": "product" if node.THRESH_WITH_CTR else node.THRESHOLD_ON,
            "score_threshold": node[f"INFERENCE_TH_{phase}"], "topk": node[f"PRE_NMS_TOPK_{phase}"],
            "max_detections": node[f"POST_NMS_TOPK_{phase}"],
        },
    }  # fmt: skip


def yaml_of_recipe(recipe: Recipe) -> dict[str, Any]:
    """The `MODEL.FCOS` keys in which a recipe differs from the defaults; inverse of `_translate`."""
    keys: dict[str, Any] = {}
    for name, part in (_PARTS | {"head": FCOS_HEAD_REGISTRY.get(recipe.head_name)}).items():
        own = {f.name: key for key, f in keyed_fields(part).items()}
        keys |= {own[field]: value for field, value in getattr(recipe, name).items() if field in own}
    assigner, loss, selector = recipe.assigner, recipe.loss, recipe.selector
    radius = assigner.get("center_radius", 1.5)
    normalizers = {ours: theirs for theirs, ours in _NORMALIZERS.items()}
    class_normalizer = loss.get("class_normalizer", "mean_positives")
    threshold = selector.get("score_threshold", 0.05)
    phases = {"TRAIN": {**selector, **recipe.train_selector}, "TEST": selector}
    keys |= {
        "HEAD_NAME": recipe.head_name,
        "IN_FEATURES": list(recipe.features),
        "FPN_STRIDES": [2 ** int(name.removeprefix("p")) for name in recipe.features],
        "SIZES_OF_INTEREST": [int(high) for _, high in assigner["size_ranges"][:-1]],
        "TOP_LEVELS": recipe.top_levels,
        "CENTER_SAMPLE": radius > 0,
        "POS_RADIUS": radius or 1.5,
        "BOX_QUALITY": loss["quality"] if loss.get("quality") in ("iou", "none") else "ctrness",
        "BOX_WEIGHT": loss.get("box_weight", "auto"),
        "LOSS_NORMALIZER_CLS": normalizers.get(class_normalizer, class_normalizer),
        "LOSS_NORMALIZER_LOC": loss.get("box_normalizer", "auto"),
        "MOVING_START": loss.get("moving_start", 100.0),
        "THRESHOLD_ON": selector.get("threshold_on", "class"),
        **{f"INFERENCE_TH_{phase}": threshold for phase in phases},
        **{f"PRE_NMS_TOPK_{phase}": given.get("topk", 1000) for phase, given in phases.items()},
        **{f"POST_NMS_TOPK_{phase}": given.get("max_detections", 100) for phase, given in phases.items()},
        **{name.upper(): value for name, value in recipe.detector.items()},
    }
    add_fcos_config(defaults := CN({"MODEL": {}}))
    return {key: value for key, value in keys.items() if defaults.MODEL.FCOS[key] != value}


def _part(name: str, cfg: CN, channels: int, train: bool = False) -> Any:
    """Build one part from `MODEL.FCOS`, by its registered name."""
    node = cfg.MODEL.FCOS
    part = _PARTS[name]
    if name in _REGISTRIES:
        key = f"{name.upper()}_NAME"
        one_of(f"MODEL.FCOS.{key}", node[key], [n for n, _ in _REGISTRIES[name]])
        part = _REGISTRIES[name].get(node[key])
    if hasattr(part, "from_config"):  # another project's part that reads its own keys
        return part(**part.from_config(cfg))
    part_with_fields = part if is_dataclass(part) else _PARTS[name]
    values = _translate(node, train).get(name, {})
    if name == "head":
        values["in_channels"] = channels
    values |= {f.name: node[key] for key, f in keyed_fields(part_with_fields).items() if f.name not in values}
    names = {f.name for f in fields(part_with_fields)}  # another head may have fewer options
    return part(**{name: value for name, value in values.items() if name in names})


def _dense(cfg: CN, shapes: dict[str, ShapeSpec]) -> tuple[DenseFCOS, list[int]]:
    """`DenseFCOS` and the strides of its levels.

    Raises:
        ValueError: the features are unknown to the backbone, or FPN_STRIDES is not what the backbone has.
    """
    node = cfg.MODEL.FCOS
    for name in node.IN_FEATURES:
        if name not in shapes:
            raise ValueError(f"MODEL.FCOS.IN_FEATURES names {name!r}, but the backbone has: {', '.join(shapes)}.")
    strides = [shapes[name].stride for name in node.IN_FEATURES]
    if strides != list(node.FPN_STRIDES):
        raise ValueError(f"MODEL.FCOS.FPN_STRIDES is {list(node.FPN_STRIDES)}, but the backbone has {strides}.")
    channels = shapes[node.IN_FEATURES[0]].channels
    return DenseFCOS(**{name: _part(name, cfg, channels) for name in _PARTS}), strides


@config_reader("FCOS")
def fcos_arguments(cfg: CN) -> dict[str, Any]:
    """Arguments of `FCOS` from a config.

    Raises:
        ValueError: CLASS_AGNOSTIC is True, which is for proposals.
    """
    if cfg.MODEL.FCOS.CLASS_AGNOSTIC:
        raise ValueError(
            "MODEL.FCOS.CLASS_AGNOSTIC is True, which only FCOSProposals knows: set it to False, or "
            "MODEL.META_ARCHITECTURE to ProposalNetwork or GeneralizedRCNN."
        )
    backbone = build_backbone(cfg)
    dense, _ = _dense(cfg, backbone.output_shape())
    return {
        "backbone": backbone, "dense": dense, "num_classes": cfg.MODEL.FCOS.NUM_CLASSES,
        "in_features": cfg.MODEL.FCOS.IN_FEATURES, "pixel_mean": cfg.MODEL.PIXEL_MEAN,
        "pixel_std": cfg.MODEL.PIXEL_STD, "input_format": cfg.INPUT.FORMAT,
        **{name.lower(): cfg.MODEL.FCOS[name] for name in ("INCLUSIVE_FAR_CORNER", "KEEP_EMPTY", "BATCH_INVARIANT")},
    }  # fmt: skip


@config_reader("FCOSProposals")
def proposal_arguments(cfg: CN, shapes: dict[str, ShapeSpec]) -> dict[str, Any]:
    """Arguments of `FCOSProposals` from a config and the backbone's output shapes.

    Raises:
        ValueError: BATCH_INVARIANT is True, which the other parts of a two-stage detector cannot be.
    """
    if cfg.MODEL.FCOS.BATCH_INVARIANT:
        raise ValueError(
            "MODEL.FCOS.BATCH_INVARIANT is True, but backbone and ROI heads of a two-stage detector work on the "
            "padding: set it to False and run images one by one."
        )
    dense, strides = _dense(cfg, shapes)
    return {
        "dense": dense, "train_selector": _part("selector", cfg, 0, train=True), "strides": strides,
        "in_features": cfg.MODEL.FCOS.IN_FEATURES, "class_agnostic": cfg.MODEL.FCOS.CLASS_AGNOSTIC,
        "num_classes": 1 if cfg.MODEL.FCOS.CLASS_AGNOSTIC else cfg.MODEL.FCOS.NUM_CLASSES,
    }  # fmt: skip


def build_yacs(cfg: CN, origin: str) -> nn.Module:
    """The model that a config describes, on PyTorch's default device.

    Raises:
        FcosError: its architecture or its backbone is not registered; one sentence.
    """
    for key, name, registry in (
        ("META_ARCHITECTURE", cfg.MODEL.META_ARCHITECTURE, META_ARCH_REGISTRY),
        ("BACKBONE.NAME", cfg.MODEL.BACKBONE.NAME, BACKBONE_REGISTRY),
    ):
        if name not in registry:
            raise FcosError(
                f"{origin} has MODEL.{key} {name!r}, which nothing here registers: add --plugin MODULE if it is a part "
                "of a project that you trust."
            )
    return META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)


def read_yacs(tree: dict[str, Any], origin: str, path: Path | None = None) -> CN:
    """A config of Detectron2's YAML keys, ours included; nothing in it is run.

    Args:
        tree: of `parse_yaml`.
        origin: what to call it in messages.
        path: of the file that it is from, which may build on others in this file system (`_BASE_`).
    Raises:
        FcosError: a key is unknown, or a value is not what the key takes; one sentence.
    """
    add_fcos_config(cfg := get_cfg())
    if path is not None:
        tree = _with_base(tree, path, ())
    elif _BASE in tree:
        raise FcosError(f"{origin} builds on another file ({_BASE}), which only a config file can.")
    try:
        _merge(cfg, CN(tree), origin)
    except KeyError as error:
        key = str(error.args[0]).rpartition(": ")[2]
        raise FcosError(f"{origin} has the unknown key {key}{suggestion(key, list(yacs_keys(cfg)))}") from error
    except Exception as error:
        raise FcosError(f"{origin} is not a config: {sentence(error)}") from error
    if path is None:  # another's data, which names no files of this machine
        pair_of(cfg.MODEL.FCOS.FAD_GENOTYPE, f"{origin}: MODEL.FCOS.FAD_GENOTYPE")
    if cfg.MODEL.LOAD_PROPOSALS:
        raise FcosError(
            f"{origin} has MODEL.LOAD_PROPOSALS True, but Detectron2 unpickles such files, which may run code: set it "
            "as an override if you trust them."
        )
    for at, value in nodes(cfg):
        check_number(at, value, origin)
    return cfg


_BASE = "_BASE_"
_MOST_BASES = 20  # one on top of the other


def read_text(path: Path) -> str:
    """The text of a config file.

    Raises:
        FcosError: it is no file of text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FcosError(f"The config file {path} cannot be read: {error}.") from error


def _with_base(tree: Any, path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """What a YAML file says on top of those it builds on."""
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise FcosError(f"{path} holds no config but {type(tree).__name__}.")
    bases = tree.pop(_BASE, [])
    built: dict[str, Any] = {}
    for name in bases if isinstance(bases, list) else [bases]:
        base = path.parent / Path(str(name)).expanduser()
        if "://" in str(name) or base.suffix.lower() not in (".yaml", ".yml"):
            raise FcosError(f"{path} builds on {name!r}, which is no YAML file on this machine.")
        if not base.is_file():
            raise FcosError(f"{path} builds on {base}, which does not exist.")
        if base.resolve() in above or len(above) > _MOST_BASES:
            raise FcosError(f"{path} builds on {name!r}, which builds on it in turn.")
        _merge_trees(_with_base(parse_yaml(read_text(base), str(base)), base, (*above, path.resolve())), built, path)
    _merge_trees(tree, built, path)
    return built


def _merge_trees(new: dict[str, Any], into: dict[str, Any], origin: Path) -> None:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(into.get(key, {}), dict):
            _merge_trees(value, into.setdefault(key, {}), origin)
        elif isinstance(into.get(key), dict):
            raise FcosError(f"{origin} has {value!r} for {key}, which is a node in the file it builds on.")
        else:
            into[key] = value


def _merge(cfg: CN, loaded: CN, origin: str) -> None:
    """Put what was loaded into a config, translating keys of Detectron2's first version."""
    version = loaded.get("VERSION", None) or guess_version(loaded, origin)
    if version == cfg.VERSION:
        cfg.merge_from_other_cfg(loaded)
        return
    old = downgrade_config(cfg, to_version=version)
    old.merge_from_other_cfg(loaded)
    new = upgrade_config(old)
    cfg.clear()
    cfg.update(new)


def sentence(error: Exception) -> str:
    """The error in one line, with its kind where the message alone says little."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:2]) if isinstance(error, OmegaConfBaseException) else " ".join(lines)
    known = isinstance(error, ValueError) and text
    return (text if known else f"{type(error).__name__}: {text}").rstrip(".") + "."
