"""Configs from files: a file that fails leaves nothing behind."""

from __future__ import annotations

import builtins
from pathlib import Path

import pytest
import yaml

from fcos_d2.config import load_config
from fcos_d2.config.stored import build, dump_config
from fcos_d2.errors import FcosError
from fcos_d2.genotype import GENOTYPES
from fcos_d2.paths import config_root
from fcos_d2.weights.write import save

FAILING = ["raise RuntimeError('no')", "def broken(:", "import no_such_module", "from .absent import x"]


@pytest.mark.parametrize("text", FAILING)
def test_config_that_fails_leaves_the_import_of_python_alone(text: str, tmp_path: Path) -> None:
    """Detectron2 exchanges `builtins.__import__` while it loads a config, and keeps the exchange when that raises."""
    before = builtins.__import__
    (tmp_path / "config.py").write_text(text)
    with pytest.raises(FcosError, match=r"config\.py"):
        load_config(tmp_path / "config.py")
    assert builtins.__import__ is before


LINES = "\n".join(map(str, GENOTYPES["other"]))


def test_a_file_of_a_genotype_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By override, in a YAML file, and in Python; what is loaded needs the file no more."""
    monkeypatch.chdir(tmp_path)
    Path("genotype.log").write_text(LINES)
    name = "fad-fcos_imprv_R_50_FPN_1x"
    asked = ["model.dense.head.genotype=genotype.log"]
    assert load_config(name, asked).model.dense.head.genotype == LINES
    base = config_root() / "yaml" / "fad" / f"{name}.yaml"
    Path("x.yaml").write_text(f"_BASE_: {base}\nMODEL: {{FCOS: {{FAD_GENOTYPE: genotype.log}}}}\n")
    assert load_config("x.yaml").MODEL.FCOS.FAD_GENOTYPE == LINES
    assert load_config(str(base), ["MODEL.FCOS.FAD_GENOTYPE=genotype.log"]).MODEL.FCOS.FAD_GENOTYPE == LINES
    assert load_config(name).model.dense.head.genotype == "paper"
    with pytest.raises(FcosError, match=r"There is no genotype file gone\.log"):
        load_config(name, ["model.dense.head.genotype=gone.log"])


def test_a_checkpoint_names_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That would let a stranger read one."""
    monkeypatch.chdir(tmp_path)
    Path("genotype.log").write_text(LINES)
    stored = dump_config(load_config("fad-fcos_imprv_R_50_FPN_1x")).replace("genotype: paper", "genotype: genotype.log")
    assert "genotype.log" in stored
    save("x.pth", {"model": {}, "config": stored})
    cfg = load_config("x.pth")
    assert cfg.model.dense.head.genotype == "genotype.log"
    with pytest.raises(FcosError, match="must be one of 'paper', 'other', or the two lines"):
        build(cfg.model, "x.pth")
    keys = {"MODEL": {"META_ARCHITECTURE": "FCOS", "FCOS": {"HEAD_NAME": "FADHead", "FAD_GENOTYPE": "genotype.log"}}}
    save("y.pth", {"model": {}, "config": yaml.safe_dump({**keys, "VERSION": 2})})
    with pytest.raises(FcosError, match=r"MODEL\.FCOS\.FAD_GENOTYPE is 'genotype\.log', but it must be one of"):
        load_config("y.pth")
