"""Every published layout that is written down: imported whole into the model of its config, and exported back."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from torch import nn

from fcos_d2 import importers, zoo
from fcos_d2.config.compose import compose
from fcos_d2.importers import FAMILIES
from fcos_d2.modeling.unfilled import unfilled

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("FCOS_D2_SHARED") or ROOT.parent / "shared") / "reference" / "checkpoint-keys"
LAYOUTS = sorted(path.stem for path in FOLDER.glob("*.json"))
if not LAYOUTS:
    pytest.skip(f"no layouts in {FOLDER}: set FCOS_D2_SHARED to the folder that has them", allow_module_level=True)


def tensors_of(keys: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """Tensors of these names and shapes, another number in each; all but vectors take the memory of one number."""
    made = {}
    for i, (name, shape) in enumerate(keys.items()):
        if name.endswith("num_batches_tracked"):
            made[name] = torch.tensor(i)
        elif len(shape) == 1:
            made[name] = torch.rand(shape) + 0.01
        else:
            made[name] = torch.tensor((i + 1) / 1024).expand(shape)
    return made


def wrapped(layout: dict, tensors: dict[str, torch.Tensor]) -> dict:
    """What a file of the family holds, as the layout describes it."""
    if layout["family"] in ("fcos_core", "fcos_plus", "fad"):
        return {"model": {f"module.{name}": tensor for name, tensor in tensors.items()}, "iteration": 90000}
    if layout["family"] == "mmdet":
        return {"meta": {"epoch": 12, "CLASSES": ("person", "bicycle")}, "state_dict": tensors}
    return {"model": tensors, "iteration": 89999} if layout["family"] == "detectron2" else tensors


def row_of(name: str, layout: dict) -> zoo.Variant:
    """The row of the zoo whose config the layout was made from."""
    family, stem = FAMILIES[layout["family"]].zoo, name.partition("__")[2]
    (row,) = (v for v in zoo.VARIANTS if v.family == family and stem in (v.name, *v.aliases))
    return row


@cache
def model_of(recipe: str, backbone: str, num_classes: int) -> nn.Module:
    config = compose(recipe=recipe, backbone=backbone, schedule="1x").model
    config.num_classes = num_classes
    with unfilled():
        return instantiate(config)


@pytest.mark.parametrize("name", LAYOUTS)
def test_nothing_is_missing_or_left_over(name: str, tmp_path: Path) -> None:
    layout = json.loads((FOLDER / f"{name}.json").read_text())
    row, tensors = row_of(name, layout), tensors_of(layout["keys"])
    path = tmp_path / (layout["published_file"] or f"{name.partition('__')[2]}.pth")
    torch.save(wrapped(layout, tensors), path)

    imported = importers.load(path, family=layout["family"])

    assert row in imported.variants
    assert imported.variant in imported.variants  # the file's name decides
    classes = 91 if layout["family"] == "torchvision" else 80
    model = model_of(row.recipe, row.backbone, classes)
    model.load_state_dict(imported.state_dict, strict=True, assign=True)  # raises unless names and shapes are equal
    assert imported.report.num_classes == classes

    back = importers.export(imported.state_dict, layout["family"], row.full_name, unused=imported.unused)

    assert back.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert back[key].shape == tensor.shape, key
        assert back[key].dtype == tensor.dtype, key
        if not torch.equal(back[key], tensor):  # only norms without an epsilon, through float32 twice
            assert "epsilon" in str(imported.report)
            assert key.endswith(".weight") and tensor.dim() == 1
            torch.testing.assert_close(back[key], tensor, rtol=3e-7, atol=0)


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name.startswith("mmdet__")])
def test_older_names_of_mmdetection(name: str, tmp_path: Path) -> None:
    layout = json.loads((FOLDER / f"{name}.json").read_text())
    tensors = tensors_of(layout["keys"])
    older = {}
    for key, tensor in tensors.items():
        for new, old in layout["legacy_names"].items():
            key = key.replace(new, old)
        older[key] = tensor
    assert older.keys() != tensors.keys()

    new, old = (importers.load({"state_dict": x}).state_dict for x in (tensors, older))

    assert new.keys() == old.keys()
    assert all(torch.equal(new[key], old[key]) for key in new)
