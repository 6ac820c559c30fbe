"""Every variant: its two config files are up to date, equal, and build the same detector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode, get_cfg, instantiate
from detectron2.modeling import build_model

import fcos_d2
from fcos_d2 import zoo
from fcos_d2.errors import FcosError
from fcos_d2.modeling.backbone import BACKBONES
from fcos_d2.modeling.unfilled import unfilled
from fcos_d2.paths import config_root
from fcos_d2.zoo.schedules import SCHEDULES
from projects_tools.config_files import render
from projects_tools.zoo_table import costs_json, count_costs, markdown

WRITE = "run projects_tools/write_configs.py"
PARTS = ("grid", "assigner", "coder", "selector", "head", "loss")


def from_lazy(variant: zoo.Variant) -> torch.nn.Module:
    with unfilled():
        return instantiate(zoo.get_config(variant.full_name).model)


def yaml_config(variant: zoo.Variant) -> CfgNode:
    cfg = get_cfg()
    fcos_d2.add_fcos_config(cfg)
    cfg.merge_from_file(str(zoo.config_file(variant.full_name, yaml=True)))
    return cfg


def from_yaml(variant: zoo.Variant) -> torch.nn.Module:
    cfg = yaml_config(variant)
    cfg.MODEL.DEVICE = "meta"
    with unfilled():
        return build_model(cfg)


def options(model: torch.nn.Module) -> dict:
    parts = {name: getattr(model.dense, name) for name in PARTS}
    own = {name: (type(part), {f.name: getattr(part, f.name) for f in fields(part)}) for name, part in parts.items()}
    return own | {
        "model": (type(model), model.num_classes, model.head_in_features, model.strides, model.input_format),
        "frozen": [name for name, p in model.named_parameters() if not p.requires_grad],
    }


def shapes(model: torch.nn.Module) -> dict:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def with_something_new(*parts: Callable[[zoo.Variant], object]) -> list[Any]:
    """All variants; those that have nothing in any of these parts that is in none before are slow tests."""
    seen: set[tuple[int, object]] = set()
    cases = []
    for variant in zoo.VARIANTS:
        own = {(i, part(variant)) for i, part in enumerate(parts)}
        cases.append(variant if own - seen else pytest.param(variant, marks=pytest.mark.slow))
        seen |= own
    return cases


def network(variant: zoo.Variant) -> tuple[object, object]:
    row = BACKBONES[variant.backbone]
    return row.bottom_up, row.pyramid


@pytest.mark.parametrize("variant", with_something_new(attrgetter("recipe"), network), ids=lambda v: v.full_name)
def test_lazy_and_yaml_build_the_same(variant):
    lazy, yaml = from_lazy(variant), from_yaml(variant)
    assert options(lazy) == options(yaml)
    assert shapes(lazy) == shapes(yaml)
    assert [m.__class__ for m in lazy.modules()] == [m.__class__ for m in yaml.modules()]


@pytest.mark.parametrize(
    "variant", with_something_new(attrgetter("recipe"), attrgetter("schedule")), ids=lambda v: v.full_name
)
def test_lazy_and_yaml_train_the_same(variant):
    lazy, cfg = zoo.get_config(variant.full_name), yaml_config(variant)
    assert list(lazy.model.pixel_mean) == list(cfg.MODEL.PIXEL_MEAN)
    assert list(lazy.model.pixel_std) == list(cfg.MODEL.PIXEL_STD)
    assert lazy.train.max_iter == cfg.SOLVER.MAX_ITER
    assert lazy.train.init_checkpoint == cfg.MODEL.WEIGHTS
    assert lazy.dataloader.train.total_batch_size == cfg.SOLVER.IMS_PER_BATCH
    assert lazy.dataloader.train.mapper.image_format == cfg.INPUT.FORMAT
    resize = lazy.dataloader.train.mapper.augmentations[0]
    jitter = SCHEDULES[variant.schedule].jitter
    if jitter is None:
        sides = cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING, cfg.INPUT.MAX_SIZE_TRAIN
        assert (tuple(resize.short_edge_length), resize.sample_style, resize.max_size) == sides
    else:  # yacs has no key for it
        crop = lazy.dataloader.train.mapper.augmentations[1]
        assert (resize.min_scale, resize.max_scale, resize.target_height, resize.target_width) == (*jitter, jitter[2])
        assert list(crop.crop_size) == [jitter[2]] * 2
    resize = lazy.dataloader.test.mapper.augmentations[0]
    assert (resize.short_edge_length, resize.max_size) == (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    assert lazy.optimizer.lr == cfg.SOLVER.BASE_LR
    assert lazy.optimizer.weight_decay == cfg.SOLVER.WEIGHT_DECAY
    assert lazy.optimizer.params.bias_lr_factor == cfg.SOLVER.BIAS_LR_FACTOR
    assert lazy.optimizer.params.weight_decay_bias == cfg.SOLVER.WEIGHT_DECAY_BIAS
    assert lazy.optimizer.params.weight_decay_norm == cfg.SOLVER.WEIGHT_DECAY_NORM
    multiplier = instantiate(lazy.lr_multiplier)
    warm_up = cfg.SOLVER.WARMUP_ITERS / cfg.SOLVER.MAX_ITER
    assert multiplier(0.0) == pytest.approx(cfg.SOLVER.WARMUP_FACTOR)
    assert multiplier(warm_up) == pytest.approx(1.0)
    for i, step in enumerate(cfg.SOLVER.STEPS):
        before, after = (step - 0.5) / cfg.SOLVER.MAX_ITER, (step + 0.5) / cfg.SOLVER.MAX_ITER
        assert multiplier(before) == pytest.approx(0.1**i)
        assert multiplier(after) == pytest.approx(0.1 ** (i + 1))


def test_the_config_files_are_what_the_tables_say():
    stale = [path for path, text in render().items() if (config_root() / path).read_text(encoding="utf-8") != text]
    assert not stale, f"run projects_tools/write_configs.py: {stale}"


def test_no_config_file_is_left_over():
    root, written = config_root(), set(render())
    found = {path.relative_to(root) for path in root.rglob("*") if path.suffix in (".py", ".yaml")}
    assert {p for p in found - written if p.parts[0] != "common"} == set()


def test_one_override_changes_the_class_count_everywhere():
    from detectron2.config import LazyConfig

    cfg = LazyConfig.apply_overrides(zoo.get_config("fcos_R_18_slim_FPN_small"), ["model.num_classes=3"])
    model = instantiate(cfg.model)
    assert (model.num_classes, model.dense.head.num_classes) == (3, 3)
    assert model.dense.head.cls_logits.out_channels == 3
    cfg = yaml_config(zoo.find("fcos_R_18_slim_FPN_small"))
    cfg.merge_from_list(["MODEL.FCOS.NUM_CLASSES", 3, "MODEL.DEVICE", "cpu"])
    model = build_model(cfg)
    assert (model.num_classes, model.dense.head.num_classes) == (3, 3)


def test_names_are_unique_and_found():
    assert len(set(zoo.names())) == len(zoo.VARIANTS)
    for name, variant in zip(zoo.names(), zoo.VARIANTS):
        assert zoo.find(name) is variant
        assert zoo.find(variant.full_name) is variant


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(FcosError, match=r"no variant 'fcos_imprv_R50_FPN_1x'.*fcos_imprv_R_50_FPN_1x"):
        zoo.find("fcos_imprv_R50_FPN_1x")


def test_costs_and_table_are_written_from_the_variants():
    costs = zoo.costs()
    assert list(costs) == [variant.full_name for variant in zoo.VARIANTS], WRITE
    root = config_root().parent
    assert (root / "fcos_d2" / "zoo/costs.json").read_text(encoding="utf-8") == costs_json(costs), WRITE
    assert (root / "docs" / "zoo.md").read_text(encoding="utf-8") == markdown(costs), WRITE


ROWS = {v.full_name: BACKBONES[v.backbone] for v in zoo.VARIANTS}
NETWORKS = {(ROWS[v.full_name].bottom_up, ROWS[v.full_name].pyramid): v for v in reversed(zoo.VARIANTS)}


@pytest.mark.parametrize(
    "variant",
    [pytest.param(v, marks=pytest.mark.slow if "HRNet" in v.backbone else ()) for v in NETWORKS.values()],
    ids=lambda v: v.full_name,
)
def test_costs_are_up_to_date(variant):
    assert count_costs([variant]) == {variant.full_name: zoo.costs()[variant.full_name]}, WRITE


@pytest.mark.slow
def test_all_costs_are_up_to_date():
    assert count_costs() == zoo.costs(), WRITE


def test_cost_is_the_published_one():
    """torchvision publishes 32,269,600 parameters and 128.207 GFLOPs, which is at 800x800 and with its 91 channels."""
    from fcos_d2.modeling.cost import cost

    cfg = zoo.get_config("torchvision/fcos_resnet50_fpn")
    cfg.model.num_classes = 91
    with unfilled():
        counted = cost(instantiate(cfg.model), 800, 800)
    assert counted.parameters == 32_269_600
    assert counted.gflops == pytest.approx(128.207, abs=5e-4)
