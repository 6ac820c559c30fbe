"""A one-stage FCOS starts a two-stage detector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import instantiate

from fcos_d2 import zoo
from fcos_d2.config.stored import dump_config
from fcos_d2.errors import FcosError
from fcos_d2.weights.convert import export
from fcos_d2.weights.fit import Policy, fit
from fcos_d2.weights.read import read

SLIM = {"stem_out_channels": 32, "res2_out_channels": 32, "depth": 18, "norm": "BN", "freeze_at": 0}
START: dict[str, Any] = {"allow_backbone": True, "classes": "match", "class_names": ["a", "b"], "other_recipe": "warn"}


def small(name: str) -> Any:
    """The config of a row of R_50 with a small network."""
    cfg = zoo.get_config(name)
    cfg.model.backbone.bottom_up.update(SLIM)
    cfg.model.backbone.out_channels = 32
    return cfg


@pytest.fixture(scope="module")
def one_stage(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor], Path]:
    """A checkpoint of ours, its tensors, and the same in AdelaiDet's names."""
    torch.manual_seed(3)
    cfg = small("FCOS_R_50_1x")
    cfg.model.num_classes = 5
    state = instantiate(cfg.model).state_dict()
    folder = tmp_path_factory.mktemp("one")
    torch.save({"model": state, "class_names": list("abcde"), "config": dump_config(cfg)}, folder / "one.pth")
    return folder / "one.pth", state, folder / "theirs.pth"


def test_levels_and_towers_of_a_one_stage_detector_start_whole(one_stage):
    path, state, _ = one_stage
    model = instantiate(small("faster_rcnn_fcos_towers_R_50_FPN_1x").model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = fit(model, read(path), Policy(**START))
    after = model.state_dict()
    for name, tensor in state.items():
        if name.startswith(("backbone.", "dense.head.")) and ".cls_logits." not in name:
            assert torch.equal(after[f"proposal_generator.{name}" if name.startswith("dense.") else name], tensor), name
    fresh = [name for name in after if name.startswith("roi_heads.") or ".cls_logits." in name]
    assert all(torch.equal(after[name], before[name]) for name in fresh)
    assert report.initial == fresh and report.other_recipe == ""
    assert report.ignored == [name for name in state if ".cls_logits." in name]
    assert "starts backbone, pyramid and head" in str(report)


@pytest.mark.parametrize("name", ["faster_rcnn_fcos_R_50_FPN_1x", "fcos_rpn_R_50_FPN_1x", "faster_rcnn_R_50_FPN_1x"])
def test_other_levels_start_backbone_and_pyramid(one_stage, name):
    """p2 and the head, whose single convolution the file does not have, start anew, and the report says so."""
    path, state, _ = one_stage
    model = instantiate(small(name).model)
    report = fit(model, read(path), Policy(**START))
    after = model.state_dict()
    taken = [key for key in state if key.startswith("backbone.") and key in after]
    assert all(torch.equal(after[key], state[key]) for key in taken) and len(taken) > 100
    assert {"backbone.fpn_output2.weight", "backbone.fpn_lateral2.weight"} <= set(report.initial)
    assert [key for key in after if key.startswith("proposal_generator.") and key not in report.initial] == []
    assert any(key.startswith("backbone.top_block.p7") for key in report.ignored)
    assert set(report.initial) | set(taken) == set(after)


def test_another_recipe_is_a_warning(one_stage, tmp_path):
    cfg = small("FCOS_R_50_1x")
    cfg.model.dense.coder.unit = "pixel"
    torch.save({"model": instantiate(cfg.model).state_dict(), "config": dump_config(cfg)}, tmp_path / "pixel.pth")
    report = fit(
        instantiate(small("faster_rcnn_fcos_towers_R_50_FPN_1x").model), read(tmp_path / "pixel.pth"), Policy(**START)
    )
    assert "ltrb by relu in pixels (here: ltrb by relu in strides)" in report.other_recipe


def test_it_is_no_two_stage_detector(one_stage):
    path, _, _ = one_stage
    model = instantiate(small("faster_rcnn_fcos_R_50_FPN_1x").model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(FcosError, match="holds a one-stage detector, which a two-stage one can only start from"):
        fit(model, read(path), Policy())
    with pytest.raises(FcosError, match="with another backbone than the model"):
        fit(instantiate(zoo.get_config("faster_rcnn_fcos_R_18_FPN_small").model), read(path), Policy(**START))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_published_weights_start_one_too(tmp_path):
    """In AdelaiDet's names, of which nobody says what they are for: the variant is found by the tensors."""
    torch.manual_seed(4)
    state = instantiate(zoo.get_config("FCOS_R_50_1x").model).state_dict()
    torch.save({"model": export(state, "adelaidet", config="FCOS_R_50_1x")}, tmp_path / "FCOS_R_50_1x.pth")
    model = instantiate(zoo.get_config("faster_rcnn_fcos_towers_R_50_FPN_1x").model)
    report = fit(model, read(tmp_path / "FCOS_R_50_1x.pth"), Policy(**START))
    name = "dense.head.bbox_tower.0.weight"
    assert torch.equal(model.state_dict()[f"proposal_generator.{name}"], state[name])
    assert all(key.startswith("roi_heads.") or ".cls_logits." in key for key in report.initial)
