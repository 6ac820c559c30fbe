"""Proposal networks and two-stage detectors: their two config files say and build the same, and what the paper says."""

from __future__ import annotations

from typing import Any

import pytest
from detectron2.config import get_cfg, instantiate
from detectron2.modeling import GeneralizedRCNN, ProposalNetwork, build_model
from detectron2.modeling.proposal_generator.rpn import RPN

import fcos_d2
from fcos_d2 import zoo
from fcos_d2.config.stored import build, dump_config, parse_config
from fcos_d2.errors import FcosError
from fcos_d2.modeling import FCOSProposals
from fcos_d2.modeling.unfilled import unfilled
from fcos_d2.options import keyed_fields

ONE_OF_EACH = {(p.architecture, p.generator, p.recipe): p for p in reversed(zoo.PROPOSALS)}.values()


def yaml_config(row: zoo.ProposalVariant) -> Any:
    fcos_d2.add_fcos_config(cfg := get_cfg())
    cfg.merge_from_file(str(zoo.config_file(row.full_name, yaml=True)))
    return cfg


def on_meta(row: zoo.ProposalVariant, yaml: bool) -> Any:
    with unfilled():
        if not yaml:
            return instantiate(zoo.get_config(row.name).model)
        cfg = yaml_config(row)
        cfg.MODEL.DEVICE = "meta"
        return build_model(cfg)


def facts(model: Any) -> dict[str, Any]:
    """All that its options decide, apart from what `repr` and the shapes say."""
    found = {"pixels": (model.pixel_mean.shape, type(model)), "modules": [type(m) for m in model.modules()]}
    found["shapes"] = {name: tuple(x.shape) for name, x in model.state_dict().items()}
    found["frozen"] = [name for name, p in model.named_parameters() if not p.requires_grad]
    generator = model.proposal_generator
    if isinstance(generator, FCOSProposals):
        dense = generator.dense
        parts = [getattr(dense, name) for name in ("grid", "assigner", "coder", "selector")]
        modules = dense.head, dense.loss
        keyed = [[getattr(part, f.name) for f in keyed_fields(type(part)).values()] for part in modules]
        own = generator.in_features, generator.strides, generator.num_classes, generator.class_agnostic
        found["generator"] = (parts, keyed, dense.loss.quality, dense.loss.box_weight, generator.train_selector, own)
    else:
        plain = ["batch_size_per_image", "positive_fraction", "nms_thresh", "min_box_size", "box_reg_loss_type"]
        found["generator"] = [getattr(generator, name) for name in plain]
        found["numbers"] = [dict(x) for x in (generator.pre_nms_topk, generator.post_nms_topk, generator.loss_weight)]
        found["matcher"] = vars(generator.anchor_matcher)
        found["anchors"] = list(generator.in_features), generator.anchor_generator.num_anchors
        found["transform"] = list(generator.box2box_transform.weights)
    if isinstance(model, GeneralizedRCNN):
        heads = model.roi_heads
        found["second"] = [heads.num_classes, heads.batch_size_per_image, heads.positive_fraction]
        found["second"] += [heads.proposal_append_gt, list(heads.box_in_features), vars(heads.proposal_matcher)]
        predictor = heads.box_predictor
        found["second"] += [predictor.test_score_thresh, predictor.test_nms_thresh, predictor.test_topk_per_image]
        found["second"] += [list(predictor.box2box_transform.weights), repr(heads.box_pooler), model.input_format]
    return found


@pytest.mark.parametrize("row", zoo.PROPOSALS, ids=lambda p: p.name)
def test_lazy_and_yaml_build_the_same(row):
    lazy, yaml = (facts(on_meta(row, kind)) for kind in (False, True))
    assert lazy == yaml


@pytest.mark.parametrize("row", ONE_OF_EACH, ids=lambda p: p.name)
def test_lazy_and_yaml_train_the_same(row):
    lazy, cfg = zoo.get_config(row.name), yaml_config(row)
    assert list(lazy.model.pixel_mean) == list(cfg.MODEL.PIXEL_MEAN)
    assert list(lazy.model.pixel_std) == list(cfg.MODEL.PIXEL_STD)
    assert (lazy.optimizer.lr, lazy.train.max_iter) == (cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER)
    assert lazy.train.init_checkpoint == cfg.MODEL.WEIGHTS
    best = "box_proposals/AR@1000" if row.architecture == "ProposalNetwork" else "bbox/AP"
    assert lazy.train.get("best_metric", "bbox/AP") == cfg.TRAIN.BEST_METRIC == best


def test_fcos_and_rpn_differ_in_the_generator_alone():
    """Equal settings: backbone, levels, numbers of proposals, suppression, second stage, solver and schedule."""
    for size in ("R_50_FPN_1x", "R_18_FPN_small"):
        ours, theirs = (zoo.get_config(f"faster_rcnn_{kind}{size}") for kind in ("fcos_", ""))
        generators = [cfg.model.pop("proposal_generator") for cfg in (ours, theirs)]
        assert dump_config(ours) == dump_config(theirs)
        fcos, rpn = generators
        assert list(fcos.in_features) == list(rpn.in_features) == ["p2", "p3", "p4", "p5", "p6"]
        assert list(fcos.strides) == list(rpn.anchor_generator.strides) == [4, 8, 16, 32, 64]
        selectors = fcos.train_selector, fcos.dense.selector
        assert [x.topk for x in selectors] == list(rpn.pre_nms_topk) == [2000, 1000]
        assert [x.max_detections for x in selectors] == list(rpn.post_nms_topk) == [1000, 1000]
        assert {x.nms_threshold for x in selectors} == {rpn.nms_thresh} == {0.7}
        assert {x.nms_within for x in selectors} == {"level"}  # as `find_top_rpn_proposals` does
        assert {x.score_threshold for x in selectors} == {0.0}


def test_rpn_is_detectron2s_own():
    """Its builder makes the same of its own defaults and of what Base-RCNN-FPN.yaml changes."""
    cfg = get_cfg()
    fcos_d2.add_fcos_config(cfg)
    defaults, ours = cfg.MODEL.RPN, yaml_config(zoo.find("rpn_R_50_FPN_1x")).MODEL.RPN
    changed = {key for key in defaults if defaults[key] != ours[key]}
    assert changed == {"IN_FEATURES", "PRE_NMS_TOPK_TRAIN", "PRE_NMS_TOPK_TEST", "POST_NMS_TOPK_TRAIN"}
    assert (ours.PRE_NMS_TOPK_TRAIN, ours.PRE_NMS_TOPK_TEST) == (2000, 1000)
    assert (ours.POST_NMS_TOPK_TRAIN, ours.POST_NMS_TOPK_TEST) == (1000, 1000)


@pytest.mark.parametrize("name", ["fcos_rpn", "faster_rcnn_fcos"])
def test_what_the_paper_has(name):
    """GN in a head of one convolution, without classes, with and without centerness."""
    rows = [zoo.find(f"{name}{more}_R_50_FPN_1x") for more in ("", "_no_centerness")]
    generators = [on_meta(row, False).proposal_generator for row in rows]
    for generator in generators:
        head = generator.dense.head
        assert (head.num_classes, head.norm, head.num_shared_convs, head.num_class_convs) == (1, "GN", 1, 0)
        assert generator.class_agnostic
    with_it, without = (generator.dense for generator in generators)
    assert with_it.loss.quality == "centerness" and with_it.head.quality is not None
    assert without.loss.quality == "none" and without.head.quality is None
    assert with_it.assigner == without.assigner


def test_names():
    names = [p.name for p in zoo.PROPOSALS]
    assert len(set(names)) == len(names) and not set(names) & set(zoo.names())
    assert {"faster_rcnn_fcos_R_50_FPN_1x", "fcos_rpn_R_50_FPN_1x"} <= set(names)
    for row in zoo.PROPOSALS:
        assert zoo.find(row.name) is zoo.find(row.full_name) is row and zoo.is_name(row.name)
    kinds = {"ProposalNetwork": ProposalNetwork, "GeneralizedRCNN": GeneralizedRCNN}
    for row in ONE_OF_EACH:
        model = on_meta(row, False)
        assert type(model) is kinds[row.architecture]
        assert isinstance(model.proposal_generator, RPN if row.generator == "RPN" else FCOSProposals)
    with pytest.raises(FcosError, match="faster_rcnn_fcos_R_50_FPN_1x"):
        zoo.find("faster_rcnn_fcos_R50_FPN_1x")


@pytest.mark.parametrize("row", ONE_OF_EACH, ids=lambda p: p.name)
def test_a_stored_config_builds_the_same(row):
    """What a checkpoint holds is data: nothing but known parts, read back and built."""
    cfg = zoo.get_config(row.name)
    again = parse_config(dump_config(cfg), "a checkpoint")
    with unfilled():
        model = build(again.model)
    assert facts(model) == facts(on_meta(row, False))


def test_one_override_changes_the_class_count():
    cfg = zoo.get_config("faster_rcnn_fcos_R_18_slim_FPN_small")
    cfg.model.roi_heads.num_classes = 3
    cfg.model.backbone.out_channels = 32
    with unfilled():
        model = instantiate(cfg.model)
    assert model.roi_heads.box_predictor.cls_score.out_features == 4
    assert model.proposal_generator.dense.head.cls_logits.out_channels == 1
    assert model.proposal_generator.dense.head.in_channels == 32
