"""Configs from everywhere; strict overrides; configs as text."""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, ResNet
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.modeling.backbone.resnet import BasicStem
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch.retinanet import RetinaNet, RetinaNetHead
from detectron2.modeling.roi_heads.box_head import FastRCNNConvFCHead
from detectron2.utils.registry import locate
from omegaconf import OmegaConf
from yaml import safe_load

import fcos_d2
from fcos_d2 import zoo
from fcos_d2.config import plugins, targets
from fcos_d2.config.load import load_config
from fcos_d2.config.stored import build, check_complete, dump_config, parse_config
from fcos_d2.config.train_options import TRAIN_OPTIONS
from fcos_d2.errors import FcosError
from fcos_d2.paths import config_root
from fcos_d2.predict import Predictor

LAZY = "fcos/fcos_imprv_R_50_FPN_1x"
AUGMENTATIONS = "dataloader.train.mapper.augmentations"


def lazy(*overrides):
    return load_config(config_root() / f"{LAZY}.py", overrides)


def yaml(*overrides):
    return load_config(config_root() / "yaml" / f"{LAZY}.yaml", overrides)


def test_sources_say_the_same():
    text = dump_config(lazy())
    assert dump_config(load_config("fcos_imprv_R_50_FPN_1x")) == text
    assert yaml().MODEL.META_ARCHITECTURE == "FCOS"


def test_train_options_are_filled_in_and_kept():
    cfg = lazy()
    assert cfg.train.ema == TRAIN_OPTIONS["ema"] and cfg.train.max_iter == 90000
    cfg.train.ema.decay = 0.5
    assert lazy().train.ema.decay == TRAIN_OPTIONS["ema"]["decay"]  # the defaults are not shared


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("model.num_classes=3", "model.dense.head.num_classes", 3),  # a reference follows
        ("train.init_checkpoint=", "train.init_checkpoint", ""),
        ("train.output_dir=/a folder/x=1,y", "train.output_dir", "/a folder/x=1,y"),
        ("train.output_dir='quoted'", "train.output_dir", "quoted"),
        ("train.init_checkpoint=detectron2://A/R-50.pkl", "train.init_checkpoint", "detectron2://A/R-50.pkl"),
        ("optimizer.lr=1", "optimizer.lr", 1.0),
        ("optimizer.lr=1e-3", "optimizer.params.base_lr", 0.001),
        ("train.amp.enabled=true", "train.amp.enabled", True),
        ("train.checkpointer={period: 7}", "train.checkpointer", {"period": 7, "max_to_keep": 100}),
        (f"{AUGMENTATIONS}[0].max_size=99", f"{AUGMENTATIONS}.0.max_size", 99),
        (f"{AUGMENTATIONS}.1.horizontal=false", f"{AUGMENTATIONS}[1].horizontal", False),
        ("dataloader.train.dataset.names=[a,b]", "dataloader.train.dataset.names", ["a", "b"]),
        # parameters that the config leaves at their defaults
        ("dataloader.train.aspect_ratio_grouping=false", "dataloader.train.aspect_ratio_grouping", False),
        ("model.dense.selector.topk=7", "model.dense.selector.topk", 7),
        ("model.dense.loss.focal_gamma=1", "model.dense.loss.focal_gamma", 1.0),
        ("model.backbone.bottom_up=null", "model.backbone.bottom_up", None),
    ],
)  # fmt: skip
def test_override(override, key, value):
    found = OmegaConf.select(lazy(override), key)
    assert found == value and type(value) in (type(found), dict, list)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.num_clases=3", ["model.num_clases", "did you mean 'model.num_classes'?"]),
        ("num_classes=3", ["num_classes", "did you mean"]),
        ("train.ema.decai=0.5", ["train.ema.decai", "'train.ema.decay'?"]),
        ("model.dense.selector.tpk=3", ["'model.dense.selector.topk'?"]),
        ("train.checkpointer={perod: 5}", ["train.checkpointer.perod", "'train.checkpointer.period'?"]),
        ("qwertz=3", ["qwertz"]),
        ("model.num_classes=three", ["model.num_classes", "a whole number", "'three'"]),
        ("model.num_classes=1.5", ["model.num_classes", "a whole number", "1.5"]),
        ("model.num_classes=null", ["model.num_classes", "None"]),
        ("train.amp.enabled=1", ["train.amp.enabled", "true or false", "1"]),
        ("optimizer.lr=fast", ["optimizer.lr", "a number", "'fast'"]),
        ("model.in_features=p3", ["model.in_features", "a list", "[p3]"]),
        ("train.max_iter.x=3", ["train.max_iter is 90000", "no keys"]),
        ("dataloader.train.mapper.augmentations[5].x=3", ["list of 2", "0 to 1"]),
        ("train.max_iter", ["'train.max_iter'", "key=value"]),
        ("train.log_period=[", ["train.log_period", "'['"]),
        ("~train.seed=1", ["~train.seed"]),
    ],
)
def test_wrong_override_is_one_sentence(override, words):
    with pytest.raises(FcosError) as error:
        lazy(override)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)


def test_yaml_overrides():
    cfg = yaml("MODEL.FCOS.NUM_CLASSES=3", "SOLVER.BASE_LR", "1", "INPUT.MIN_SIZE_TRAIN", "(64,)", "MODEL.WEIGHTS=")
    assert cfg.MODEL.FCOS.NUM_CLASSES == 3 and cfg.MODEL.WEIGHTS == ""
    assert cfg.SOLVER.BASE_LR == 1.0 and isinstance(cfg.SOLVER.BASE_LR, float)
    assert cfg.INPUT.MIN_SIZE_TRAIN == (64,)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["MODEL.FCOS.NUM_CLASES", "3"], ["'MODEL.FCOS.NUM_CLASES'", "'MODEL.FCOS.NUM_CLASSES'?"]),
        (["MODEL.FCOS=3"], ["'MODEL.FCOS'"]),
        (["MODEL.FCOS.NUM_CLASSES"], ["MODEL.FCOS.NUM_CLASSES", "no value"]),
        (["MODEL.FCOS.NUM_CLASSES=x"], ["a whole number", "'x'"]),
        (["INPUT.MIN_SIZE_TRAIN=640"], ["INPUT.MIN_SIZE_TRAIN", "[640]"]),
    ],
)
def test_wrong_yaml_override_is_one_sentence(overrides, words):
    with pytest.raises(FcosError) as error:
        yaml(*overrides)
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.py", None, ["absent.py", "does not exist"]),
        ("absent.yaml", None, ["absent.yaml", "does not exist"]),
        ("absent.pth", None, ["absent.pth", "does not exist"]),
        ("fcos_imprv_R_50_FPN_1y", None, ["fcos_imprv_R_50_FPN_1x"]),
        ("syntax.py", "model = (", ["syntax.py", "line 1"]),
        ("empty.py", "", ["empty.py", "'model'"]),
        ("raises.py", "import nothing_of_that_name", ["raises.py", "nothing_of_that_name"]),
        (
            "recipe.py",
            "from fcos_d2.compose import compose\nmodel, *_ = compose('improvd', 'R_50_FPN', '1x')",
            ["recipe.py", "'improvd'", "improved"],
        ),
        ("key.yaml", "MODEL:\n  FCOS:\n    NUM_CLASES: 3\n", ["key.yaml", "MODEL.FCOS.NUM_CLASES", "NUM_CLASSES'?"]),
        ("type.yaml", "MODEL:\n  FCOS:\n    NUM_CLASSES: three\n", ["type.yaml", "NUM_CLASSES"]),
        ("broken.yaml", "MODEL: [", ["broken.yaml", "line"]),
        ("unsafe.yaml", "MODEL: !!python/object/apply:os.getpid []", ["unsafe.yaml"]),
        ("base.yaml", "_BASE_: gone.yaml\n", ["base.yaml", "gone.yaml"]),
    ],
)
def test_wrong_source_is_one_sentence(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(FcosError) as error:
        load_config(tmp_path / name if "." in name else name)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)


SOME = zoo.names()[::4]  # the networks of the zoo are stored and read in tests/e2e/test_every_variant.py, too


@pytest.mark.parametrize("name", [x if x in SOME else pytest.param(x, marks=pytest.mark.slow) for x in zoo.names()])
def test_every_variant_survives_as_text(name):
    cfg = load_config(name)
    text = dump_config(cfg)
    again = parse_config(text, "text")
    assert dump_config(again) == text
    again.model.num_classes = 7
    assert again.model.dense.head.num_classes == 7  # references are still references
    assigner = instantiate(again.model.dense.assigner)
    assert assigner == instantiate(cfg.model.dense.assigner) and assigner.size_ranges[-1][1] == math.inf
    assert instantiate(again.model.dense.coder) == instantiate(cfg.model.dense.coder)


def test_text_keeps_tuples_resolvers_and_names_what_it_cannot_hold(tmp_path):
    OmegaConf.register_new_resolver("engine_test_double", lambda x: 2 * x, replace=True)
    cfg = lazy()
    cfg.model.in_features = ("p3", "p4", "p5", "p6", "p7")
    cfg.train.log_period = "${engine_test_double:21}"
    again = parse_config(dump_config(cfg), "text")
    assert again.model.in_features == list(cfg.model.in_features)
    assert again.train.log_period == 42
    cfg.optimizer.params.lr_factor_func = lambda name: 1.0
    with pytest.raises(FcosError, match=r"optimizer\.params\.lr_factor_func"):
        dump_config(cfg)


def test_yaml_config_survives_as_text():
    cfg = yaml("MODEL.FCOS.NUM_CLASSES=3")
    again = dump_config(parse_config(dump_config(cfg), "text"))
    assert safe_load(again) == safe_load(dump_config(cfg))


def test_detectron2s_stored_config_is_read(tmp_path):
    LazyConfig.save(lazy(), str(tmp_path / "config.yaml"))
    assert load_config(tmp_path / "config.yaml").model.num_classes == 80


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "subprocess.run",
        "torch.load",
        "torch.hub.load",
        "detectron2.engine.defaults.os.system",  # through a module that imports it
        "detectron2.config.LazyConfig.load",
        "fcos_d2.data.synthetic.generate",
        "torch.nn.modules.module.pickle.loads",
        {"_target_": "os.getcwd"},
        7,
    ],
)
def test_stored_config_cannot_name_other_code(target):
    text = dump_config(lazy()).replace("_target_: torch.optim.SGD", f"_target_: {target!r}")
    with pytest.raises(FcosError, match="at optimizer"):
        parse_config(text, "a file")


def test_stored_config_cannot_unpickle():
    cfg = lazy("dataloader.train.dataset.proposal_files=[https://example.com/x.pkl]")
    with pytest.raises(FcosError, match="unpickle"):
        parse_config(dump_config(cfg), "a file")


def test_checkpoint_without_config(tmp_path):
    torch.save({"model": {}}, tmp_path / "bare.pth")
    shutil.copy(tmp_path / "bare.pth", tmp_path / "bare.weights")
    for source in (tmp_path / "bare.pth", tmp_path / "bare.weights", "https://example.org/a.pth"):
        with pytest.raises(FcosError, match=r"does not say what detector it is of: .*--model NAME"):
            load_config(source)


def test_part_of_another_project_needs_the_config_file():
    cfg = lazy()
    cfg.model.backbone.bottom_up = L(Path)()
    with pytest.raises(FcosError, match=r"pathlib\.Path"):
        parse_config(dump_config(cfg), "model.pth")


# Parts of another project


@pytest.mark.parametrize("name", ["loss", "assigner"])
def test_unknown_part_of_training_is_not_needed_to_detect(name, tmp_path):
    cfg = load_config("fcos_R_18_slim_FPN_small", ["model.num_classes=3"])
    model = instantiate(cfg.model)
    state = {**model.state_dict(), f"dense.{name}.scale": torch.ones(3)}
    cfg.model.dense[name] = {"_target_": "somewhere_else.parts.Own", "alpha": "${...num_classes}"}
    torch.save({"model": state, "config": dump_config(cfg)}, tmp_path / "x.pth")
    predictor = Predictor(tmp_path / "x.pth", device="cpu", score_threshold=0.0)
    assert predictor(np.zeros((32, 32, 3), np.uint8))["instances"].image_size == (32, 32)
    assert torch.equal(predictor.model.state_dict()["dense.head.cls_logits.bias"], state["dense.head.cls_logits.bias"])
    with pytest.raises(FcosError, match=r"Training needs somewhere_else\.parts\.Own.*--plugin somewhere_else\.parts"):
        check_complete(predictor.model)


@pytest.mark.parametrize("name", ["head", "coder", "selector"])
def test_unknown_part_of_detection_is_refused(name):
    cfg = lazy()
    cfg.model.dense[name]["_target_"] = "somewhere_else.parts.Own"
    with pytest.raises(FcosError, match=rf"model\.dense\.{name}.*--plugin somewhere_else\.parts"):
        parse_config(dump_config(cfg), "a file")


def test_plugins_are_noted_and_never_imported(tmp_path, monkeypatch):
    (tmp_path / "noted_parts.py").write_text("raise SystemExit\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plugins, "_LOADED", [])  # of other tests of this process
    cfg = lazy()
    cfg.model.dense.loss["_target_"] = "noted_parts.Loss"
    text = dump_config(cfg)
    assert safe_load(text)["plugins"] == ["noted_parts"]
    parse_config(text, "a file")
    assert "noted_parts" not in sys.modules


def test_named_plugin_is_allowed(tmp_path, monkeypatch):
    (tmp_path / "named_parts.py").write_text(
        "import torch\nclass Own(torch.nn.Module):\n    def __init__(self, a, **more): super().__init__()\n"
        "def _hidden(): pass\nfrom os import system\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert not plugins.allowed("named_parts.Own")
    try:
        plugins.load_plugins(["named_parts"])
        assert plugins.allowed("named_parts.Own")
        assert not plugins.allowed("named_parts._hidden") and not plugins.allowed("named_parts.system")
        build({"_target_": "named_parts.Own", "a": 1, "b": 2})
        with pytest.raises(FcosError, match="'cfg'"):
            build({"_target_": "named_parts.Own", "a": 1, "cfg": {}})
    finally:
        plugins.forget("named_parts")
    for name in ("gone_parts", "os", "../x", "named-parts"):
        with pytest.raises(FcosError, match=r"plugin"):
            plugins.load_plugins([name])


def test_announced_plugins_are_loaded(tmp_path, monkeypatch):
    (tmp_path / "announced_parts.py").write_text("class Own: pass\n")
    folder = tmp_path / "announced-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: announced\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[fcos_d2.plugins]\na = announced_parts\nb = gone_parts\n")
    monkeypatch.syspath_prepend(tmp_path)
    plugins.load_announced.cache_clear()
    try:
        plugins.load_plugins()
        assert plugins.allowed("announced_parts.Own")
    finally:
        plugins.forget("announced_parts")


# Files written before


def test_files_of_the_first_version_are_read():
    """configs of commit aef350d, in which some classes lived elsewhere."""
    text = (Path(__file__).parent / "stored_by_aef350d.yaml").read_text(encoding="utf-8")
    assert "fcos_d2.engine.coco_evaluation.FastCOCOEvaluator" in text
    overrides = ["model.num_classes=3", "train.device=cpu"]
    ours = parse_config(dump_config(load_config("fcos_R_18_slim_FPN_small", overrides)), "ours")
    found = parse_config(text, "theirs")
    later = {"pictures": False, "loggers": []}
    found = OmegaConf.merge(found, {"train": later})
    assert OmegaConf.to_container(found, resolve=True) == OmegaConf.to_container(ours, resolve=True)


@pytest.mark.parametrize(
    "path",
    [
        "detectron2.data.get_detection_dataset_dicts", "detectron2.data.transforms.FixedSizeCrop", "fcos_d2.FCOS",
        "detectron2.data.transforms.augmentation_impl.ResizeShortestEdge", "detectron2.solver.WarmupParamScheduler",
        "fcos_d2.FCOSHead", "fcos_d2.data.loader.build_train_loader", "fcos_d2.data.mapper.FastMapper",
        "fcos_d2.engine.coco_evaluation.FastCOCOEvaluator", "fcos_d2.modeling.NASFCOSHead", "fcos_d2.modeling.FADHead",
        "fcos_d2.modeling.backbone.DLA", "fcos_d2.modeling.backbone.HRNet", "fcos_d2.modeling.backbone.hrfpn_6l",
        "fcos_d2.modeling.backbone.nas_fpn_nearest", "fcos_d2.modeling.backbone.resnet", "torch.optim.adamw.AdamW",
        "fvcore.common.param_scheduler.CosineParamScheduler", "detectron2.modeling.backbone.fpn.FPN",
    ],
)  # fmt: skip
def test_paths_of_written_files_are_known(path):
    row = plugins.find(path)
    assert row is not None and locate(row.path) is row.make


@pytest.mark.parametrize("path", sorted({row.path for row in targets._OWN.values()}))
def test_no_module_has_the_path_of_a_part(path):
    """From Python 3.12 on Detectron2's `locate` would find the module."""
    file = Path(fcos_d2.__file__).parents[1].joinpath(*path.split("."))
    assert not file.with_suffix(".py").exists() and not file.is_dir()


def test_a_checkpoint_names_no_files_of_others(tmp_path):
    overrides = ["train.output_dir=/somewhere", "train.init_checkpoint=https://example.com/x.pth"]
    cfg = load_config("fcos_R_18_slim_FPN_small", overrides)
    cfg.dataloader.evaluator.output_dir = "/elsewhere"
    torch.save({"model": {"x": torch.ones(1)}, "config": dump_config(cfg)}, tmp_path / "x.pth")
    again = load_config(tmp_path / "x.pth")
    assert (again.train.output_dir, again.train.init_checkpoint) == ("./output", "")
    assert "output_dir" not in again.dataloader.evaluator
    (tmp_path / "x.yaml").write_text(dump_config(cfg))  # what one writes oneself stays
    assert load_config(tmp_path / "x.yaml").train.output_dir == "/somewhere"


def test_py_files_are_code(tmp_path):
    path = tmp_path / "x.py"
    path.write_text("raise SystemExit\n")
    with pytest.raises(FcosError, match="--no-py"):
        load_config(path, allow_py=False)


def test_class_of_the_config_file_itself_cannot_be_stored(tmp_path):
    path = tmp_path / "own.py"
    path.write_text("from detectron2.config import LazyCall as L\nclass Own: pass\nmodel = L(Own)()\n")
    with pytest.raises(FcosError, match="define it in a module of its own"):
        dump_config(load_config(path))


def test_detectron2s_own_models_are_stored_and_built():
    """RetinaNet as Detectron2's configs/common/models/retinanet.py has it, in either version."""
    node = L(RetinaNet)(
        backbone=L(FPN)(
            bottom_up=L(ResNet)(
                stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
                stages=L(ResNet.make_default_stages)(depth=18, norm="FrozenBN"),
                out_features=["res3", "res4", "res5"],
            ),
            in_features=["res3", "res4", "res5"], out_channels=32,
            top_block=L(LastLevelP6P7)(in_channels=512, out_channels=32),
        ),
        head=L(RetinaNetHead)(
            input_shape=[L(ShapeSpec)(channels=32)], num_classes="${..num_classes}", conv_dims=[32], num_anchors=9,
        ),
        anchor_generator=L(DefaultAnchorGenerator)(
            sizes=[[32, 40, 50]], aspect_ratios=[0.5, 1.0, 2.0], strides=[8, 16, 32, 64, 128], offset=0.0
        ),
        box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
        anchor_matcher=L(Matcher)(thresholds=[0.4, 0.5], labels=[0, -1, 1], allow_low_quality_matches=True),
        num_classes=7, head_in_features=["p3", "p4", "p5", "p6", "p7"],
        pixel_mean=[103.53, 116.28, 123.675], pixel_std=[1.0, 1.0, 1.0],
    )  # fmt: skip
    cfg = OmegaConf.create({"model": node}, flags={"allow_objects": True})
    assert repr(build(parse_config(dump_config(cfg), "x").model)) == repr(instantiate(node))


def test_a_shape_in_a_config_is_stored():
    """Detectron2's configs/common/models/mask_rcnn_fpn.py holds shapes as they are; they are tuples in version 0.6."""
    node = L(FastRCNNConvFCHead)(input_shape=ShapeSpec(channels=8, height=7, width=7), conv_dims=[4], fc_dims=[16])
    cfg = OmegaConf.create({"model": {"box_head": node}}, flags={"allow_objects": True})
    again = parse_config(dump_config(cfg), "x").model.box_head
    assert repr(build(again)) == repr(instantiate(again)) == repr(instantiate(node))
