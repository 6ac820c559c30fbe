"""A config with Detectron2's yacs keys -> the LazyConfig tree that trains the same.

    model, dataloader, optimizer, lr_multiplier, train = lazy_of_yacs(cfg).values()

Every key that Detectron2's `DefaultTrainer` and its builders read is translated, or refused by name: none is dropped in
silence. The model is built from its keys, which the tree holds as data. Options of training that Detectron2 has no key
for are `TRAIN.*`, which `add_fcos_config` adds.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from functools import reduce
from operator import getitem
from typing import Any

import detectron2.data.transforms as T
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.config import LazyCall as L
from detectron2.data.detection_utils import create_keypoint_hflip_indices
from detectron2.solver import WarmupParamScheduler
from detectron2.solver.build import get_default_optimizer_params
from fvcore.common.param_scheduler import CosineParamScheduler, MultiStepParamScheduler
from omegaconf import DictConfig, OmegaConf
from torch import nn

from .._compat import load_lazy_config
from ..data.loader import RandomSubsetSampling, RepeatFactorSampling
from ..errors import FcosError
from ..options import one_of
from ..paths import config_root
from .targets import target
from .tta import node_of_yacs
from .yacs import add_fcos_config, build_yacs, read_yacs

__all__ = [
    "class_key", "clipping_sgd", "dataloader_of_yacs", "lazy_of_yacs", "lr_multiplier_of_yacs", "model_from_keys",
    "optimizer_of_yacs", "train_of_yacs",
]  # fmt: skip

# Keys that ask for what no node says, with the only value that can be translated.
_REFUSED: dict[str, Any] = {"TEST.PRECISE_BN.ENABLED": False, "TEST.EXPECTED_RESULTS": []}
# Top-level nodes that are no business of a model.
_NOT_OF_MODELS = ("SOLVER", "DATALOADER", "DATASETS", "OUTPUT_DIR", "SEED", "TRAIN", "CUDNN_BENCHMARK", "GLOBAL")
# Where a meta architecture has its number of classes.
_CLASS_KEYS = {
    "FCOS": "FCOS", "OneStageDetector": "FCOS", "RetinaNet": "RETINANET", "GeneralizedRCNN": "ROI_HEADS",
}  # fmt: skip


def lazy_of_yacs(cfg: CfgNode) -> DictConfig:
    """The nodes model, dataloader, optimizer, lr_multiplier and train; with TEST.AUG.ENABLED also tta.

    Raises:
        FcosError: a key asks for what cannot be translated; the message names it.
    """
    nodes = {
        "model": model_of_yacs(cfg), "dataloader": dataloader_of_yacs(cfg), "optimizer": optimizer_of_yacs(cfg),
        "lr_multiplier": lr_multiplier_of_yacs(cfg), "train": train_of_yacs(cfg),
    }  # fmt: skip
    if (tta := node_of_yacs(cfg)) is not None:
        nodes["tta"] = tta
    return OmegaConf.create(nodes, flags={"allow_objects": True})


def model_of_yacs(cfg: CfgNode) -> DictConfig:
    """A node that builds the model from its keys: those that differ from the defaults, as plain data."""
    add_fcos_config(defaults := get_cfg())
    keys = {name: value for name, value in _difference(cfg, defaults).items() if name not in _NOT_OF_MODELS}
    for name in ("WEIGHTS", "DEVICE"):
        keys.get("MODEL", {}).pop(name, None)
    if cfg.MODEL.ROI_BOX_HEAD.get("USE_FED_LOSS"):  # it counts the images of each class
        keys["DATASETS"] = {"TRAIN": list(cfg.DATASETS.TRAIN)}
    where = _CLASS_KEYS.get(cfg.MODEL.META_ARCHITECTURE)
    known = {} if where is None else {"num_classes": cfg.MODEL[where].NUM_CLASSES}
    return L(model_from_keys)(
        keys=keys, **known, pixel_mean=list(cfg.MODEL.PIXEL_MEAN), pixel_std=list(cfg.MODEL.PIXEL_STD),
        input_format=cfg.INPUT.FORMAT,
    )  # fmt: skip


def class_key(cfg: CfgNode) -> str | None:
    """The key of the number of classes, e.g. MODEL.FCOS.NUM_CLASSES; None for an architecture that has none."""
    where = _CLASS_KEYS.get(cfg.MODEL.META_ARCHITECTURE)
    return None if where is None else f"MODEL.{where}.NUM_CLASSES"


@target("model")
def model_from_keys(
    keys: Mapping[str, Any], pixel_mean: Iterable[float], pixel_std: Iterable[float], input_format: str,
    num_classes: int | None = None,
) -> nn.Module:  # fmt: skip
    """Build a model of Detectron2 from its yacs keys, on the CPU.

    Args:
        keys: nested; what they leave out has the default of Detectron2 and `add_fcos_config`.
        pixel_mean, pixel_std, input_format: instead of those among the keys.
        num_classes: instead of that of the meta architecture, and of every part that had the same number.
    """
    plain: Any = OmegaConf.to_container(keys) if isinstance(keys, DictConfig) else copy.deepcopy(dict(keys))
    cfg = read_yacs(plain, "The node model.keys")
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = list(pixel_mean), list(pixel_std)
    cfg.INPUT.FORMAT = input_format
    cfg.MODEL.DEVICE = "cpu"
    where = _CLASS_KEYS.get(cfg.MODEL.META_ARCHITECTURE)
    if num_classes is not None and where is not None:
        before = cfg.MODEL[where].NUM_CLASSES
        for name in set(_CLASS_KEYS.values()):
            if before == cfg.MODEL[name].NUM_CLASSES:
                cfg.MODEL[name].NUM_CLASSES = num_classes
    return build_yacs(cfg, "The node model.keys")


def _difference(cfg: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Keys with another value than the defaults, as plain data."""
    found: dict[str, Any] = {}
    for key, value in cfg.items():
        if isinstance(value, Mapping):
            if inner := _difference(value, defaults.get(key, {})):
                found[key] = inner
        elif key not in defaults or defaults[key] != value:
            found[key] = list(value) if isinstance(value, tuple) else copy.deepcopy(value)
    return found


def dataloader_of_yacs(cfg: CfgNode) -> DictConfig:
    """The nodes train, test and evaluator, for the keys INPUT, DATASETS, DATALOADER and TEST."""
    _refuse(cfg)
    nodes = load_lazy_config(config_root() / "common" / "data.py", "dataloader")
    train, test = nodes.train, nodes.test
    for node, names in ((train, list(cfg.DATASETS.TRAIN)), (test, list(cfg.DATASETS.TEST))):
        node.dataset.names = names[0] if len(names) == 1 else names
    train.dataset.filter_empty = cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    if cfg.MODEL.KEYPOINT_ON:
        train.dataset.min_keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE
    if cfg.MODEL.LOAD_PROPOSALS:
        train.dataset.proposal_files = list(cfg.DATASETS.PROPOSAL_FILES_TRAIN)
        test.dataset.proposal_files = list(cfg.DATASETS.PROPOSAL_FILES_TEST)
    train.mapper.update(_mapper(cfg, True))
    test.mapper.update(_mapper(cfg, False))
    train.total_batch_size = cfg.SOLVER.IMS_PER_BATCH
    train.aspect_ratio_grouping = cfg.DATALOADER.ASPECT_RATIO_GROUPING
    train.num_workers = test.num_workers = cfg.DATALOADER.NUM_WORKERS
    if (sampler := _sampler(cfg)) is not None:
        train.sampler = sampler
    if cfg.TEST.KEYPOINT_OKS_SIGMAS:
        nodes.evaluator.kpt_oks_sigmas = list(cfg.TEST.KEYPOINT_OKS_SIGMAS)
    if limits := cfg.TEST.get("MAX_DETS_PER_IMAGE"):
        nodes.evaluator.max_dets_per_image = list(limits)
    return nodes


def _mapper(cfg: CfgNode, train: bool) -> dict[str, Any]:
    """What Detectron2's `DatasetMapper.from_config` reads."""
    options = {
        "augmentations": _augmentations(cfg, train), "image_format": cfg.INPUT.FORMAT,
        "use_instance_mask": cfg.MODEL.MASK_ON, "instance_mask_format": cfg.INPUT.MASK_FORMAT,
        "use_keypoint": cfg.MODEL.KEYPOINT_ON,
        "recompute_boxes": bool(train and cfg.INPUT.CROP.ENABLED and cfg.MODEL.MASK_ON),
    }  # fmt: skip
    if cfg.MODEL.KEYPOINT_ON:
        options["keypoint_hflip_indices"] = [int(i) for i in create_keypoint_hflip_indices(list(cfg.DATASETS.TRAIN))]
    if cfg.MODEL.LOAD_PROPOSALS:
        datasets = cfg.DATASETS
        topk = datasets.PRECOMPUTED_PROPOSAL_TOPK_TRAIN if train else datasets.PRECOMPUTED_PROPOSAL_TOPK_TEST
        options["precomputed_proposal_topk"] = topk
    return options


def _augmentations(cfg: CfgNode, train: bool) -> list[DictConfig]:
    """What Detectron2's `build_augmentation` makes, and the crop that its mapper puts before."""
    given = cfg.INPUT
    if not train:
        return [L(T.ResizeShortestEdge)(short_edge_length=given.MIN_SIZE_TEST, max_size=given.MAX_SIZE_TEST)]
    one_of("INPUT.RANDOM_FLIP", given.RANDOM_FLIP, ("none", "horizontal", "vertical"))
    steps = [
        L(T.ResizeShortestEdge)(
            short_edge_length=list(given.MIN_SIZE_TRAIN), sample_style=given.MIN_SIZE_TRAIN_SAMPLING,
            max_size=given.MAX_SIZE_TRAIN,
        )
    ]  # fmt: skip
    if given.CROP.ENABLED:
        steps.insert(0, L(T.RandomCrop)(crop_type=given.CROP.TYPE, crop_size=list(given.CROP.SIZE)))
    if given.RANDOM_FLIP != "none":
        vertical = given.RANDOM_FLIP == "vertical"
        steps.append(L(T.RandomFlip)(horizontal=not vertical, vertical=vertical))
    return steps


def _sampler(cfg: CfgNode) -> DictConfig | None:
    name = cfg.DATALOADER.SAMPLER_TRAIN
    known = ("TrainingSampler", "RepeatFactorTrainingSampler", "RandomSubsetTrainingSampler")
    one_of("DATALOADER.SAMPLER_TRAIN", name, known)
    if name == "RepeatFactorTrainingSampler":
        if not cfg.DATALOADER.get("REPEAT_SQRT", True):
            raise FcosError("DATALOADER.REPEAT_SQRT is False, which is not available: set it to True.")
        return L(RepeatFactorSampling)(threshold=cfg.DATALOADER.REPEAT_THRESHOLD)
    if name == "RandomSubsetTrainingSampler":
        if (ratio := cfg.DATALOADER.get("RANDOM_SUBSET_RATIO")) is None:
            raise FcosError("DATALOADER.RANDOM_SUBSET_RATIO is missing: RandomSubsetTrainingSampler needs it.")
        return L(RandomSubsetSampling)(ratio=ratio)
    return None


def optimizer_of_yacs(cfg: CfgNode) -> DictConfig:
    """What Detectron2's `build_optimizer` makes: SGD, its gradients clipped if SOLVER.CLIP_GRADIENTS says so."""
    solver = cfg.SOLVER
    if unknown := [key for key in solver if key not in get_cfg().SOLVER]:
        raise FcosError(
            f"SOLVER.{unknown[0]} is a key of another project, which Detectron2's build_optimizer does not read: leave "
            "it out, or override build_optimizer and build_lr_scheduler of LazyTrainer."
        )
    arguments = {
        "params": L(get_default_optimizer_params)(
            base_lr="${..lr}", bias_lr_factor=solver.BIAS_LR_FACTOR, weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
            weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        ),
        "lr": solver.BASE_LR, "momentum": solver.MOMENTUM, "weight_decay": solver.WEIGHT_DECAY,
        "nesterov": solver.NESTEROV,
    }  # fmt: skip
    clip = solver.CLIP_GRADIENTS
    if not clip.ENABLED or _clips_the_whole(clip):
        return L(torch.optim.SGD)(**arguments)
    return L(clipping_sgd)(**arguments, clip_type=clip.CLIP_TYPE, clip_value=clip.CLIP_VALUE, norm_type=clip.NORM_TYPE)


def _clips_the_whole(clip: CfgNode) -> bool:
    """Whether the norm of all gradients together is clipped ("full_model" of Detectron2's projects)."""
    one_of("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", clip.CLIP_TYPE, ("value", "norm", "full_model"))
    if clip.CLIP_TYPE == "full_model" and clip.NORM_TYPE != 2.0:
        raise FcosError(f"SOLVER.CLIP_GRADIENTS.NORM_TYPE is {clip.NORM_TYPE}; for full_model it must be 2.0.")
    return clip.CLIP_TYPE == "full_model"


@target("optimizer")
def clipping_sgd(
    params: Any, lr: float, momentum: float, weight_decay: float, nesterov: bool, clip_type: str, clip_value: float,
    norm_type: float = 2.0,
) -> torch.optim.SGD:  # fmt: skip
    """SGD that clips each parameter's gradient before its step, by "value" or "norm", as Detectron2's builder does."""
    optimizer = torch.optim.SGD(params, lr, momentum, weight_decay=weight_decay, nesterov=nesterov)

    def clip(optimizer: torch.optim.Optimizer, *unused: Any) -> None:
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            if clip_type == "value":
                nn.utils.clip_grad_value_(parameter, clip_value)
            else:
                nn.utils.clip_grad_norm_(parameter, clip_value, norm_type)

    optimizer.register_step_pre_hook(clip)
    return optimizer


def lr_multiplier_of_yacs(cfg: CfgNode) -> DictConfig:
    """What Detectron2's `build_lr_scheduler` makes."""
    solver = cfg.SOLVER
    name, last = solver.LR_SCHEDULER_NAME, solver.MAX_ITER
    if name == "WarmupMultiStepLR":
        steps = [step for step in solver.STEPS if step <= last]
        values = [solver.GAMMA**k for k in range(len(steps) + 1)]
        schedule = L(MultiStepParamScheduler)(values=values, milestones=steps, num_updates=last)
    elif name == "WarmupCosineLR":
        end = solver.get("BASE_LR_END", 0.0) / solver.BASE_LR
        schedule = L(CosineParamScheduler)(start_value=1.0, end_value=end)
    elif name == "WarmupStepWithFixedGammaLR":
        schedule = L("fvcore.common.param_scheduler.StepWithFixedGammaParamScheduler")(
            base_value=1.0, gamma=solver.GAMMA, num_decays=solver.get("NUM_DECAYS", 3), num_updates=last
        )
    else:
        raise FcosError(
            f"SOLVER.LR_SCHEDULER_NAME is {name!r}; it must be one of: WarmupMultiStepLR, WarmupCosineLR, "
            "WarmupStepWithFixedGammaLR. Override build_lr_scheduler of LazyTrainer for another."
        )
    rescaled = {"rescale_interval": True} if solver.get("RESCALE_INTERVAL") else {}
    return L(WarmupParamScheduler)(
        scheduler=schedule, warmup_factor=solver.WARMUP_FACTOR, warmup_method=solver.WARMUP_METHOD,
        warmup_length=min(solver.WARMUP_ITERS / last, 1.0), **rescaled,
    )  # fmt: skip


def train_of_yacs(cfg: CfgNode) -> dict[str, Any]:
    """The node `train` (see `TrainOptions`), for `TRAIN.*` and what Detectron2 has keys for."""
    _refuse(cfg)
    node = _lower(cfg.get("TRAIN", {}))
    node |= {
        "output_dir": cfg.OUTPUT_DIR, "init_checkpoint": cfg.MODEL.WEIGHTS, "max_iter": cfg.SOLVER.MAX_ITER,
        "eval_period": cfg.TEST.EVAL_PERIOD, "device": cfg.MODEL.DEVICE, "seed": cfg.SEED,
        "cudnn_benchmark": cfg.CUDNN_BENCHMARK, "float32_precision": cfg.get("FLOAT32_PRECISION", ""),
    }  # fmt: skip
    node["checkpointer"] = {**node.get("checkpointer", {}), "period": cfg.SOLVER.CHECKPOINT_PERIOD}
    node["amp"] = {**node.get("amp", {}), "enabled": cfg.SOLVER.AMP.ENABLED}
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if clip.ENABLED and _clips_the_whole(clip):
        node["clip_grad"] = clip.CLIP_VALUE
    return node


def _lower(node: Mapping[str, Any]) -> dict[str, Any]:
    return {key.lower(): _lower(value) if isinstance(value, Mapping) else value for key, value in node.items()}


def _refuse(cfg: CfgNode) -> None:
    for key, allowed in _REFUSED.items():
        if (value := reduce(getitem, key.split("."), cfg)) != allowed:
            raise FcosError(f"{key} is {value!r}, which training here does not do: set it to {allowed!r}.")
