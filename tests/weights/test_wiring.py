"""Weights of FAD: the genotype that is asked for is checked against the names, and kept in what is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import instantiate
from torch import Tensor, nn

from fcos_d2 import importers
from fcos_d2.config import load_config
from fcos_d2.config.compose import compose
from fcos_d2.errors import FcosError
from fcos_d2.genotype import GENOTYPES, Genotype
from fcos_d2.modeling.unfilled import unfilled
from fcos_d2.weights.fit import fit
from fcos_d2.weights.read import read
from fcos_d2.weights.wiring import operations_of

R50 = "fad/fad-fcos_imprv_R_50_FPN_1x"
BOX, CLASSES = GENOTYPES["paper"]
# The operations of the paper's, with other wires: the first two edges of the class tower read each other's state.
REWIRED = Genotype(((*((name, 1 - source) for name, source in CLASSES.nodes[0]),), *CLASSES.nodes[1:]))
# And one operation more.
CHANGED = Genotype(((("std_conv_3x3", 0), BOX.nodes[0][1]), *BOX.nodes[1:]))


def text(*pair: Genotype) -> str:
    return "\n".join(map(str, pair))


def model_of(genotype: str, classes: int = 80) -> nn.Module:
    node = compose("fad", "R_50_FPN", "1x").model
    node.dense.head.genotype, node.num_classes = genotype, classes
    with unfilled():
        return instantiate(node)


def with_memory(node: Any) -> nn.Module:
    """A model that a file may be read into; its first weights are anything."""
    with unfilled():
        made = instantiate(node).to_empty(device="cpu")
    for name in ("pixel_mean", "pixel_std"):
        getattr(made, name).copy_(torch.tensor(list(node[name])).view(-1, 1, 1))
    return made


def file_of(path: Path, genotype: str, classes: int = 80) -> Path:
    """A published file of such a model; each tensor takes the memory of one number, but for vectors."""
    state: dict[str, Tensor] = {}
    for name, tensor in model_of(genotype, classes).state_dict().items():
        number = torch.tensor(0.5 + len(state) / 1000)
        state[name] = number.expand(tensor.shape).clone() if tensor.dim() == 1 else number.expand(tensor.shape)
    torch.save({"model": {f"module.{n}": t for n, t in importers.export(state, "fad").items()}}, path)
    return path


def test_operations_are_read_from_names() -> None:
    found = operations_of(model_of("paper").state_dict())
    assert len(found) == 24
    for tower, genotype in (("bbox_tower", BOX), ("cls_tower", CLASSES)):
        for cell in (0, 1):
            for n, node in enumerate(genotype.nodes):
                for e, (operation, _) in enumerate(node):
                    assert found[f"{tower}.cells.{cell}.dag.{n}.{e}"] == operation
    assert operations_of(["dense.head.cls_tower.0.weight"]) == {}


def test_names_do_not_tell_the_wires(tmp_path: Path) -> None:
    """They are the paper's unless a genotype says otherwise, and then that one is what the written file holds."""
    path, log = file_of(tmp_path / "x.pth", text(BOX, REWIRED)), tmp_path / "genotype.log"
    log.write_text(text(BOX, REWIRED))

    plain, asked = importers.load(path), importers.load(path, genotype=log)

    assert plain.config_name == R50 and "genotype paper" in str(plain.report)
    assert "the operation of each edge, but not which state it reads" in str(plain.report)
    assert asked.variant is None and asked.config.model.dense.head.genotype == text(BOX, REWIRED)
    assert not asked.report.warnings
    assert importers.load(path, genotype="paper").config_name == R50

    report = importers.convert(path, tmp_path / "ours.pth", genotype=str(log))
    cfg = load_config(tmp_path / "ours.pth")
    assert "note: genotype " in str(report)
    assert cfg.model.dense.head.genotype == text(BOX, REWIRED)
    made = with_memory(cfg.model)
    assert made.dense.head.cls_tower[0].sources[0] == [0, 1]
    fit(made, read(tmp_path / "ours.pth"))
    with pytest.raises(FcosError, match=r"another recipe: genotype \w{8} \(here: genotype paper\)"):
        fit(with_memory(load_config(R50).model), read(tmp_path / "ours.pth"))

    back = importers.convert(tmp_path / "ours.pth", tmp_path / "theirs.pth", to="fad")
    assert str(REWIRED) in back.facts[-1] and "does not hold the genotype" in back.facts[-1]


def test_operations_are_checked(tmp_path: Path) -> None:
    path = file_of(tmp_path / "x.pth", text(CHANGED, CLASSES), classes=3)
    edge = r"its bbox_tower.cells.0.dag.0.0 is std_conv_3x3, where {} has sinSep_conv_3x3_x3"
    with pytest.raises(FcosError, match=f"another genotype.*{edge.format(R50)}: give .*--genotype FILE"):
        importers.load(path)
    with pytest.raises(FcosError, match=f"was not trained with the genotype 'paper': {edge.format('the config')}"):
        importers.load(path, genotype="paper")
    with pytest.raises(FcosError, match=r"^There is no genotype file none\.log"):
        importers.load(path, genotype="none.log")
    asked = importers.load(path, genotype=text(CHANGED, CLASSES))
    assert asked.report.num_classes == asked.config.model.num_classes == 3
    own = load_config("fad/fad-fcos_imprv_R_50_FPN_1x", ["model.num_classes=3"])
    assert (
        importers.load(path, genotype=text(CHANGED, CLASSES), config=own).state_dict.keys() == asked.state_dict.keys()
    )
    with pytest.raises(FcosError, match=r"does not suit the config: its bbox_tower"):
        importers.load(path, config=own)


def test_other_heads_have_no_genotype(tmp_path: Path) -> None:
    with unfilled():
        other = instantiate(compose("improved", "R_50_FPN", "1x").model)
    state = {n: torch.ones(()).expand(t.shape) for n, t in other.state_dict().items()}
    theirs = importers.export({n: t.clone() if t.dim() == 1 else t for n, t in state.items()}, "fcos_core")
    with pytest.raises(FcosError, match="has no head that was found by search: leave out --genotype"):
        importers.load({"model": theirs}, genotype="paper")
    with pytest.raises(FcosError, match="does not look like a checkpoint of fad"):
        importers.load({"model": theirs}, family="fad")


def test_damage_is_told_as_that_of_its_family(tmp_path: Path) -> None:
    path = file_of(tmp_path / "x.pth", "paper")
    model = torch.load(path)["model"]
    with pytest.raises(FcosError, match="looks like one of fad, but 1 of its tensors are of no FCOS, the first extra"):
        importers.load({"model": {**model, "module.extra": torch.ones(1)}})
    del model["module.rpn.head.box_reduce.bias"]
    with pytest.raises(FcosError, match=r"incomplete: it lacks 1 tensors of fad/fad-.*box_reduce\.bias"):
        importers.load({"model": model})
