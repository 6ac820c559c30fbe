"""Configs from files: a file that fails leaves nothing behind."""

from __future__ import annotations

import builtins
from pathlib import Path

import pytest

from fcos_d2.config import load_config
from fcos_d2.errors import FcosError

FAILING = ["raise RuntimeError('no')", "def broken(:", "import no_such_module", "from .absent import x"]


@pytest.mark.parametrize("text", FAILING)
def test_config_that_fails_leaves_the_import_of_python_alone(text: str, tmp_path: Path) -> None:
    """Detectron2 exchanges `builtins.__import__` while it loads a config, and keeps the exchange when that raises."""
    before = builtins.__import__
    (tmp_path / "config.py").write_text(text)
    with pytest.raises(FcosError, match=r"config\.py"):
        load_config(tmp_path / "config.py")
    assert builtins.__import__ is before
