"""Files as they come: wrapped, prefixed, damaged, hostile, of other classes, or of something else."""

from __future__ import annotations

import os
import pickle
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg, instantiate
from omegaconf import DictConfig
from torch import Tensor

from fcos_d2 import add_fcos_config, importers, zoo
from fcos_d2.config.compose import compose
from fcos_d2.errors import FcosError
from fcos_d2.importers import convert, export, load
from fcos_d2.modeling.unfilled import unfilled

IMPROVED = "fcos/fcos_imprv_R_50_FPN_1x"


@cache
def published(variant: str, family: str, num_classes: int = 80) -> dict[str, Tensor]:
    """Random weights of a variant as its family names them; small in memory: matrices are one number, expanded."""
    row = zoo.find(variant)
    config = compose(recipe=row.recipe, backbone=row.backbone, schedule="1x").model
    config.num_classes = num_classes
    with unfilled():
        shapes = {name: tensor.shape for name, tensor in instantiate(config).state_dict().items()}
    own = {}
    for name, shape in shapes.items():
        own[name] = torch.rand(shape) + 0.01 if len(shape) == 1 else torch.rand(()).expand(shape)
    return export(own, family)


def t_weights(num_classes: int = 80) -> dict[str, Tensor]:
    return dict(published(IMPROVED, "fcos_core", num_classes))


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def one_sentence(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert "Traceback" not in text
    return text


# What is around the weights


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: x,
        lambda x: {"model": x},
        lambda x: {"model": x, "optimizer": {"state": {}}, "scheduler": {"last_epoch": 3}, "iteration": 90000},
        lambda x: {"state_dict": x, "meta": {"CLASSES": ("a", "b")}},
        lambda x: {"model": {f"module.{name}": tensor for name, tensor in x.items()}},
        lambda x: {f"module._orig_mod.{name}": tensor for name, tensor in x.items()},
        lambda x: {"model": {name: tensor.numpy().copy() for name, tensor in x.items()}, "__author__": "somebody"},
    ],
    ids=["bare", "model", "training", "state_dict", "module.", "compiled", "arrays"],
)
def test_wrappers_and_prefixes(wrap, tmp_path: Path) -> None:
    weights = t_weights()
    content = wrap(weights)
    path = tmp_path / "FCOS_imprv_R_50_FPN_1x.pth"
    if any(isinstance(x, np.ndarray) for x in content.get("model", {}).values()):
        path = path.with_suffix(".pkl")
        path.write_bytes(pickle.dumps(content))
    else:
        saved(path, content)

    imported = load(path)

    assert imported.config_name == IMPROVED
    expected = load({"model": weights}, config=IMPROVED).state_dict
    assert imported.state_dict.keys() == expected.keys()
    assert all(torch.equal(imported.state_dict[name], expected[name]) for name in expected)


def test_pixel_statistics_in_a_file_are_put_aside() -> None:
    weights = published("adelaidet/FCOS_R_50_1x", "adelaidet") | {"pixel_mean": torch.zeros(3, 1, 1)}

    imported = load(weights, config="adelaidet/FCOS_R_50_1x")

    assert imported.report.ignored == ["pixel_mean"]
    assert list(imported.unused) == ["pixel_mean"]
    assert not any(name.startswith("pixel") for name in imported.state_dict)


# Which variant it is


def test_the_name_of_the_file_decides_between_variants_with_the_same_tensors(tmp_path: Path) -> None:
    for name, variant in {
        "FCOS_R_50_FPN_1x.pth": "fcos/fcos_R_50_FPN_1x",
        "FCOS_imprv_R_50_FPN_1x.pth": IMPROVED,
        "fcos_R_50_FPN_1x_center_giou-0a0d75a8.pth": "fcos_plus/fcos_R_50_FPN_1x_center_giou",
    }.items():
        imported = load(saved(tmp_path / name, {"model": t_weights()}))
        assert imported.config_name == variant
        assert imported.family == ("fcos_plus" if "plus" in variant else "fcos_core")
        assert "name of the file" in str(imported.report)


def test_nothing_is_guessed(tmp_path: Path) -> None:
    path = saved(tmp_path / "model_final.pth", {"model": t_weights()})

    imported = load(path)

    assert imported.variant is None
    assert imported.report.config_name is None
    assert "not decided" in str(imported.report)
    for ask in ("config_name", "recipe", "backbone"):
        with pytest.raises(FcosError, match="fits several variants") as error:
            getattr(imported, ask)
        text = one_sentence(error)
        for name in ("fcos/fcos_R_50_FPN_1x", IMPROVED, "fcos_plus/fcos_R_50_FPN_1x_center"):
            assert name in text
    # Whatever it is, the tensors are the same.
    for config in (IMPROVED, "fcos/fcos_R_50_FPN_1x"):
        chosen = load(path, config=config)
        assert chosen.config_name == config
        assert chosen.state_dict.keys() == imported.state_dict.keys()


def test_variants_that_differ_in_training_only_are_no_choice() -> None:
    imported = load(published("adelaidet/FCOS_R_50_1x", "adelaidet"))

    assert imported.recipe in ("adelaidet", "adelaidet_iou")
    assert {"adelaidet/FCOS_MS_R_50_2x", "adelaidet/FCOS_R_50_1x_iou"} <= {v.full_name for v in imported.variants}
    assert "differ in training only" in str(imported.report)


def test_caffe_and_pytorch_style_are_not_mixed_up() -> None:
    """mmdetection's R-50 with its tricks exists in both: stride and pixels differ, names and shapes do not."""
    weights = published("mmdet/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco", "mmdet")

    imported = load(weights)

    assert imported.variant is None
    assert len({zoo.find(v.full_name).backbone for v in imported.variants}) == 2


def test_a_config_of_ones_own(tmp_path: Path) -> None:
    """Any config or model can say what the weights are for."""
    config = compose(recipe="improved", backbone="R_50_FPN", schedule="1x")
    config.model.num_classes = 3
    path = saved(tmp_path / "mine.pth", {"model": t_weights(3)})

    by_node = load(path, config=config.model)
    with unfilled():
        model = instantiate(config.model)
    model.pixel_mean, model.pixel_std = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    by_model = load(path, config=model)
    by_name = load(path, config=IMPROVED, num_classes=3)
    undecided = load(path)

    for imported in (by_node, by_model, by_name, undecided):
        assert imported.report.num_classes == 3
        assert imported.state_dict.keys() == by_node.state_dict.keys()
    with pytest.raises(FcosError, match="no name in the zoo"):
        by_node.config_name  # noqa: B018


@pytest.mark.parametrize("kind", ["name", "node", "model", "yacs"])
def test_every_kind_of_config_means_the_same(kind: str) -> None:
    """A built model has its pixel statistics in float32; that is no reason to touch the first convolution."""
    weights = published("torchvision/fcos_resnet50_fpn", "torchvision")
    config: object = "torchvision/fcos_resnet50_fpn"
    if kind in ("node", "model"):
        config = zoo.get_config(config).model
    if kind == "model":
        with unfilled():
            model = instantiate(config)
        model.pixel_mean, model.pixel_std = (
            torch.tensor(list(x))[:, None, None] for x in (config.pixel_mean, config.pixel_std)
        )
        config = model
    if kind == "yacs":
        cfg = get_cfg()
        add_fcos_config(cfg)
        cfg.merge_from_file(str(zoo.config_file(config, yaml=True)))
        config = cfg

    imported = load(weights, config=config)

    assert imported.report.done == []
    assert imported.report.config_name == ("torchvision/fcos_resnet50_fpn" if kind == "name" else None)
    assert "trained for another recipe" not in str(imported.report)
    stem = imported.state_dict["backbone.bottom_up.stem.conv1.weight"]
    assert stem is weights["backbone.body.conv1.weight"]


# Classes


def test_other_classes_are_refused_with_the_remedy() -> None:
    with pytest.raises(
        FcosError, match=r"predicts 80 classes, but the config has 3: set model\.num_classes=80"
    ) as error:
        load(t_weights(), config=_improved(3))
    one_sentence(error)
    with pytest.raises(FcosError, match=r"predicts 3 classes, but .* has 80"):
        load(t_weights(3), config=IMPROVED)


def _improved(num_classes: int) -> DictConfig:
    config = compose(recipe="improved", backbone="R_50_FPN", schedule="1x").model
    config.num_classes = num_classes
    return config


def test_torchvisions_91_channels() -> None:
    """They stay, or COCO's 80 are picked in the order of their ids; the report says which."""
    weights = published("torchvision/fcos_resnet50_fpn", "torchvision", 91)
    bias = "head.classification_head.cls_logits.bias"
    weights = weights | {bias: torch.arange(91.0)}

    whole, chosen = load(weights), load(weights, num_classes=80)

    assert torch.equal(whole.state_dict["dense.head.cls_logits.bias"], torch.arange(91.0))
    ids = chosen.state_dict["dense.head.cls_logits.bias"].tolist()
    assert (len(ids), ids[:13], ids[-1]) == (80, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14], 90)
    assert chosen.state_dict["dense.head.cls_logits.weight"].shape == (80, 256, 3, 3)
    assert "91 -> 80" in str(chosen.report)
    assert "91 -> 80" not in str(whole.report)

    spread = export(chosen.state_dict, "torchvision", num_classes=91)[bias]
    assert [i for i in range(91) if spread[i] == i] == [int(i) for i in ids]
    assert {float(x) for i, x in enumerate(spread) if i not in ids} == {-100.0}  # these never score
    with pytest.raises(FcosError, match="predicts 91 classes"):
        load(weights, num_classes=20)
    with pytest.raises(FcosError, match="cannot have 91 classes"):
        export(load(t_weights()).state_dict, "adelaidet", num_classes=91)


# Damaged, hostile, foreign


class Bomb:
    """Writes a file when unpickled."""

    def __init__(self, target: Path, through: str) -> None:
        self.call = (os.system, f"touch {target}") if through == "system" else (exec, f"open({str(target)!r}, 'w')")

    def __reduce__(self):
        return self.call[0], (self.call[1],)


@pytest.mark.parametrize("through", ["system", "exec"])
@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
@pytest.mark.parametrize("where", ["beside", "inside"])
def test_a_bomb_does_not_go_off(through: str, suffix: str, where: str, tmp_path: Path) -> None:
    target, weights = tmp_path / "went_off", {"rpn.head.cls_logits.bias": torch.zeros(80)}
    bomb = Bomb(target, through)
    content = {"model": weights, "x": bomb} if where == "beside" else {"model": {**weights, "x": bomb}}
    path = tmp_path / f"FCOS_R_50_FPN_1x{suffix}"
    if suffix == ".pth":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))

    for read in (load, importers.load_backbone, lambda p: convert(p, tmp_path / "out.pth")):
        with pytest.raises(FcosError, match=re.escape(str(path))) as error:
            read(path)
        one_sentence(error)
    assert not target.exists()
    assert not (tmp_path / "out.pth").exists()
    _ = torch.load(path, weights_only=False) if suffix == ".pth" else pickle.loads(path.read_bytes())
    assert target.exists()  # it is a bomb: whoever unpickles it freely sets it off


def test_a_truncated_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "FCOS_imprv_R_50_FPN_1x.pth", {"model": t_weights()})
    path.write_bytes(path.read_bytes()[:-4096])

    with pytest.raises(FcosError, match="cut off") as error:
        load(path)
    one_sentence(error)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FcosError, match="does not exist"):
        load(tmp_path / "no.pth")


@pytest.mark.parametrize(
    "lacking", ["backbone.fpn.fpn_inner3.weight", "rpn.head.centerness.bias", "rpn.head.cls_logits.bias"]
)
def test_an_incomplete_file(lacking: str) -> None:
    weights = t_weights()
    del weights[lacking]

    with pytest.raises(FcosError, match="incomplete") as error:
        load(weights)
    one_sentence(error)
    if "cls_logits" not in lacking:
        with pytest.raises(FcosError, match="does not suit fcos/fcos_imprv_R_50_FPN_1x: 1 missing"):
            load(weights, config=IMPROVED)


def test_missing_towers_are_not_taken_for_towers_without_bias() -> None:
    """mmdetection's towers have no bias at all; one that is gone is not filled in."""
    weights = t_weights()
    del weights["rpn.head.cls_tower.3.bias"]

    with pytest.raises(FcosError, match=r"incomplete: it lacks 1 tensors .*cls_tower\.3\.bias"):
        load(weights)


def test_norms_of_more_numbers_than_the_file_has_are_one_sentence() -> None:
    """Their weights are scaled, but not before their shapes are known to be right."""
    weights = t_weights()
    for name in ("weight", "running_var"):
        weights[f"backbone.body.layer1.0.bn1.{name}"] = torch.ones(()).expand(2**40)
    with pytest.raises(FcosError, match="2 of another shape"):
        load(weights, config=IMPROVED)
    weights = t_weights()
    weights["rpn.head.scales.0.scale"] = torch.ones(2)
    with pytest.raises(FcosError, match="one number for each level"):
        load(weights, config=IMPROVED)


def test_renamed_weights() -> None:
    weights = {name.replace("rpn.head", "my.head"): tensor for name, tensor in t_weights().items()}
    with pytest.raises(FcosError, match="of no known FCOS family") as error:
        load(weights)
    assert "rpn.head." in one_sentence(error)

    weights = {name.replace("bbox_pred", "box_prediction"): tensor for name, tensor in t_weights().items()}
    with pytest.raises(FcosError, match="2 of its tensors are of no FCOS") as error:
        load(weights)
    assert "rpn.head.box_prediction.weight" in one_sentence(error)


@pytest.mark.slow
def test_another_network() -> None:
    weights = {name: tensor for name, tensor in t_weights().items() if "layer4.2" not in name}
    weights |= {"backbone.body.layer3.6.conv1.weight": torch.zeros(1)}

    with pytest.raises(FcosError, match="fits none of its published variants") as error:
        load(weights)
    assert "1 left over (backbone.bottom_up.res4.6.conv1.weight)" in one_sentence(error)


@pytest.mark.parametrize("content", [{"model": {"rpn.head.x": "text"}}, {"a": 1}, {}, {"model": {}}])
def test_what_is_no_weights(content: dict, tmp_path: Path) -> None:
    with pytest.raises(FcosError, match="holds") as error:
        load(saved(tmp_path / "x.pth", content))
    one_sentence(error)


def test_the_wrong_family() -> None:
    with pytest.raises(FcosError, match=r"does not look like a checkpoint of adelaidet .* but like fcos_core"):
        load(t_weights(), family="adelaidet")
    with pytest.raises(FcosError, match=r"no family 'yolo'.*adelaidet, mmdet, torchvision"):
        load(t_weights(), family="yolo")


def test_two_names_for_one_weight() -> None:
    weights = published("mmdet/fcos_r50-caffe_fpn_gn-head_1x_coco", "mmdet")
    weights = weights | {"bbox_head.fcos_cls.bias": torch.zeros(80)}
    with pytest.raises(FcosError, match="one weight under two names"):
        load(weights)
    with pytest.raises(FcosError, match="twice, with and without the prefix"):
        load({**t_weights(), "module.rpn.head.cls_logits.bias": torch.zeros(80)})


# Back


def test_compensated_once(tmp_path: Path) -> None:
    """Reading our own file again changes nothing."""
    path = saved(tmp_path / "FCOS_imprv_R_50_FPN_1x.pth", {"model": t_weights()})
    first = convert(path, tmp_path / "ours.pth")
    again = convert(tmp_path / "ours.pth", tmp_path / "again.pth")

    assert any("epsilon" in step for step in first.done)
    assert not any("epsilon" in step for step in again.done)
    one, two = (torch.load(tmp_path / f"{name}.pth", weights_only=True)["model"] for name in ("ours", "again"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(
        one["backbone.bottom_up.stem.conv1.norm.weight"], t_weights()["backbone.body.stem.bn1.weight"]
    )


def test_our_file_says_what_it_is(tmp_path: Path) -> None:
    from fcos_d2.config.load import load_config

    path = saved(tmp_path / "FCOS_imprv_R_50_FPN_1x.pth", {"model": t_weights()})

    report = convert(path, tmp_path / "ours.pth")

    assert report.config_name == IMPROVED
    config = load_config(tmp_path / "ours.pth")
    with unfilled():
        model = instantiate(config.model)
    content = torch.load(tmp_path / "ours.pth", weights_only=True)
    model.load_state_dict(content["model"], assign=True)
    assert config.model.dense.coder.activation == "relu"
    assert load(tmp_path / "ours.pth").family == "fcos_d2"


def test_through_our_file_and_back(tmp_path: Path) -> None:
    """Also what our model does not keep, such as mmdetection's batch counters."""
    weights = published("mmdet/fcos_r50-caffe_fpn_gn-head_1x_coco", "mmdet")
    weights = {n: torch.tensor(n.count("1")) if n.endswith("tracked") else t for n, t in weights.items()}
    assert sum(name.endswith("tracked") for name in weights) == 53
    saved(tmp_path / "fcos_r50_caffe_fpn_gn-head_1x_coco-821213aa.pth", {"meta": {}, "state_dict": weights})

    report = convert(tmp_path / "fcos_r50_caffe_fpn_gn-head_1x_coco-821213aa.pth", tmp_path / "ours.pth")
    assert report.config_name == "mmdet/fcos_r50-caffe_fpn_gn-head_1x_coco"
    convert(tmp_path / "ours.pth", tmp_path / "theirs.pth", to="mmdetection")

    back = torch.load(tmp_path / "theirs.pth", weights_only=True)
    assert set(back) == {"meta", "state_dict"}
    assert back["state_dict"].keys() == weights.keys()
    for name, tensor in weights.items():
        assert torch.equal(back["state_dict"][name], tensor), name


def test_from_one_project_to_another(tmp_path: Path) -> None:
    """AdelaiDet has a converter of its own for this; it leaves `centerness` and the epsilon."""
    weights = t_weights()
    path = saved(tmp_path / "FCOS_imprv_R_50_FPN_1x.pth", {"model": weights})

    report = convert(path, tmp_path / "adelaidet.pth", to="adelaidet")

    assert report.family == "adelaidet"
    theirs = torch.load(tmp_path / "adelaidet.pth", weights_only=True)
    head = "proposal_generator.fcos_head."
    assert torch.equal(theirs[f"{head}ctrness.weight"], weights["rpn.head.centerness.weight"])
    assert torch.equal(theirs[f"{head}scales.4.scale"], weights["rpn.head.scales.4.scale"])
    norm = "backbone.bottom_up.res5.0.shortcut.norm"
    slope = theirs[f"{norm}.weight"].double() / (theirs[f"{norm}.running_var"].double() + 1e-5).sqrt()
    before = "backbone.body.layer4.0.downsample.1"
    expected = weights[f"{before}.weight"].double() / weights[f"{before}.running_var"].double().sqrt()
    torch.testing.assert_close(slope, expected, rtol=2e-7, atol=0)


@pytest.mark.parametrize(
    ("variant", "family", "reason"),
    [
        ("fcos/fcos_R_50_FPN_1x", "adelaidet", "raw ltrb is exp in pixels"),
        (IMPROVED, "fcos_plus", "raw ltrb is relu in strides"),
        (IMPROVED, "torchvision", "its locations have the origin 'center'"),
        ("detectron2/fcos_R_50_FPN_1x", "torchvision", "origin"),
        ("torchvision/fcos_resnet50_fpn", "detectron2", "origin"),
        ("adelaidet/FCOS_RT_MS_R_50_4x_bn", "detectron2", "levels have an own weight"),
        ("adelaidet/FCOS_RT_MS_DLA_34_4x_shtw", "fcos_core", "nothing like backbone.bottom_up.base_layer"),
        ("adelaidet/FCOS_MS_V_39_3x", "detectron2", "nothing like backbone.bottom_up.stem"),
    ],
)
def test_what_the_other_project_cannot_express(variant: str, family: str, reason: str) -> None:
    row = zoo.find(variant)
    with unfilled():
        model = instantiate(compose(recipe=row.recipe, backbone=row.backbone, schedule="1x").model)
    state = {name: torch.ones(()).expand(tensor.shape) for name, tensor in model.state_dict().items()}

    with pytest.raises(FcosError, match=f"{family} cannot express this model: .*{reason}") as error:
        export(state, family, config=variant)
    one_sentence(error)


def test_a_choice_that_matters_for_the_other_project_is_the_callers(tmp_path: Path) -> None:
    """AdelaiDet knows the improved FCOS, not the original: which of the two it is has to be said."""
    path = saved(tmp_path / "model_final.pth", {"model": t_weights()})

    with pytest.raises(FcosError, match=r"say which it is \(config=\.\.\.\)") as error:
        convert(path, tmp_path / "out.pth", to="adelaidet")
    assert IMPROVED in one_sentence(error)
    assert not (tmp_path / "out.pth").exists()
    convert(path, tmp_path / "out.pth", to="adelaidet", config=IMPROVED)
    convert(path, tmp_path / "back.pth", to="fcos_core")  # where both are known, nothing has to be said
    assert torch.load(tmp_path / "back.pth", weights_only=True)["model"].keys() == t_weights().keys()


def test_what_the_other_project_always_has_is_given() -> None:
    """Scales of 1 where a model has none, and biases of 0 where its towers have none."""
    state = load(published("detectron2/fcos_R_50_FPN_1x", "detectron2")).state_dict
    theirs = export(state, "adelaidet", config="detectron2/fcos_R_50_FPN_1x")
    assert theirs.keys() == published("adelaidet/FCOS_R_50_1x", "adelaidet").keys()
    assert theirs["proposal_generator.fcos_head.scales.4.scale"] == 1.0

    variant = "mmdet/fcos_r50-caffe_fpn_gn-head_1x_coco"
    theirs = export(load(published(variant, "mmdet")).state_dict, "fcos_core", config=variant)
    assert theirs.keys() == t_weights().keys()
    assert torch.equal(theirs["rpn.head.cls_tower.6.bias"], torch.zeros(256))


def test_our_own_training_checkpoint(tmp_path: Path) -> None:
    """Its config says what it is; the averaged weights are what is exported, as they are what detects."""
    from fcos_d2.config.stored import dump_config

    config = zoo.get_config("small/fcos_R_18_slim_FPN_small")
    config.model.num_classes = 2
    state = instantiate(config.model).state_dict()
    averaged = {name: tensor + 1 for name, tensor in state.items()}
    content = {
        "model": state,
        "ema": averaged,
        "iteration": 3,
        "class_names": ["a", "b"],
        "config": dump_config(config),
    }
    path = saved(tmp_path / "model_final.pth", content)

    report = convert(path, tmp_path / "theirs.pth", to="adelaidet")
    convert(path, tmp_path / "ours.pth")

    theirs = torch.load(tmp_path / "theirs.pth", weights_only=True)
    name = "proposal_generator.fcos_head.bbox_pred.bias"
    assert torch.equal(theirs[name], averaged["dense.head.bbox_pred.bias"])
    assert "averaged" in str(report)
    ours = torch.load(tmp_path / "ours.pth", weights_only=True)
    assert ours["class_names"] == ["a", "b"]
    assert ours["config"] == content["config"]
    assert torch.equal(ours["model"]["dense.head.scales"], averaged["dense.head.scales"])


def test_scales_other_than_1_need_a_project_that_has_them() -> None:
    state = dict(load(published("adelaidet/FCOS_R_50_1x", "adelaidet")).state_dict)
    with pytest.raises(FcosError, match="it has no scales"):
        export(state, "detectron2")

    state["dense.head.scales"] = torch.ones(5)
    assert not any("scale" in name for name in export(state, "detectron2"))


def test_what_a_source_does_without_is_filled_in() -> None:
    """Scales of 1 and tower biases of 0 change nothing."""
    detectron2 = published("detectron2/fcos_R_50_FPN_1x", "detectron2")
    own = load(detectron2)
    other = load(detectron2, config="adelaidet/FCOS_R_50_1x")

    assert own.state_dict["dense.loss.average"] == 300.0
    assert "dense.loss.average" in str(own.report)
    assert torch.equal(other.state_dict["dense.head.scales"], torch.ones(5))
    assert "scales set to 1" in str(other.report)

    mmdet = load(published("mmdet/fcos_r50-caffe_fpn_gn-head_1x_coco", "mmdet"), config="fcos/fcos_R_50_FPN_1x")
    assert torch.equal(mmdet.state_dict["dense.head.bbox_tower.9.bias"], torch.zeros(256))
    assert "8 biases of tower convolutions set to 0" in str(mmdet.report)


def test_other_pixels() -> None:
    """RGB weights for a BGR config: the first convolution is turned round and rescaled, so that it gives the same."""
    weights = dict(published("torchvision/fcos_resnet50_fpn", "torchvision"))
    stem = torch.randn(64, 3, 7, 7)
    weights["backbone.body.conv1.weight"] = stem
    config = compose(recipe="improved", backbone="R_50_FPN", schedule="1x").model
    config.pixel_mean, config.pixel_std = [103.53, 116.28, 123.675], [1.0, 2.0, 4.0]

    imported = load(weights, config=config)

    std = torch.tensor([57.375 / 1.0, 57.12 / 2.0, 58.395 / 4.0])[:, None, None]
    found = imported.state_dict["backbone.bottom_up.stem.conv1.weight"]
    torch.testing.assert_close(found, stem.flip(1) / std, rtol=1e-6, atol=0)
    rgb = torch.rand(3, 32, 32) * 255
    theirs = (rgb - torch.tensor([123.675, 116.28, 103.53])[:, None, None]) / torch.tensor([58.395, 57.12, 57.375])[
        :, None, None
    ]
    ours = (rgb.flip(0) - torch.tensor(config.pixel_mean)[:, None, None]) / torch.tensor(config.pixel_std)[
        :, None, None
    ]
    same = [torch.nn.functional.conv2d(x[None], w, padding=3) for x, w in ((theirs, stem), (ours, found))]
    torch.testing.assert_close(*same, rtol=1e-4, atol=1e-4)
    text = str(imported.report)
    assert "RGB -> BGR" in text
    assert "trained for another recipe" in text  # the stride in the 1x1 and the grid


def test_the_report_is_data_and_text() -> None:
    import json

    report = load(t_weights(), config=IMPROVED).report

    data = json.loads(json.dumps(report.as_dict()))
    assert (data["missing"], data["left_over"], data["num_classes"], data["tensors"]) == ([], [], 80, 320)
    text = str(report)
    for part in (
        "BGR, mean 102.98, 115.947, 122.772",
        "1x1",
        "cell centers",
        "relu in strides",
        "beside the box tower",
    ):
        assert part in text


def test_writing_is_all_or_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path / "FCOS_imprv_R_50_FPN_1x.pth", {"model": t_weights()})
    before = path.read_bytes()
    with pytest.raises(FcosError, match="is the file that is read"):
        convert(path, path)
    (tmp_path / "out.pth").write_bytes(b"old")
    with pytest.raises(FcosError, match="cannot express"):
        convert(path, tmp_path / "out.pth", to="torchvision")

    assert path.read_bytes() == before
    assert (tmp_path / "out.pth").read_bytes() == b"old"
    convert(path, tmp_path / "new" / "folder" / "out.pth")
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == ["out.pth"]
