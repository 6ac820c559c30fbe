"""The page about engines: its program runs."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from onnx_files import certified
from PIL import Image

from fcos_d2 import runtime


def test_the_program_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(runtime.__file__).parents[1] / "docs" / "runtime.md").read_text(encoding="utf-8")
    (program,) = re.findall(
        r"^```python\n(from fcos_runtime import Detector, read_picture\n.*?)^```$", page, re.M | re.S
    )
    (tmp_path / "exported").mkdir()
    certified(tmp_path / "exported" / "model.onnx")
    Image.fromarray(runtime.generated_picture(4, 100, 140)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "fcos_runtime", runtime)
    exec(compile(program, "page", "exec"), {})
    assert capsys.readouterr().out.count("\n") > 5
