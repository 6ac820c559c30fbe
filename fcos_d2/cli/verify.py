"""`fcos verify`: whether an exported file is as it was certified, without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.text import Text

from ..errors import FcosError
from . import options as shared
from .session import Result, Session, fcos_command


@fcos_command("verify")
@click.argument("file", type=click.Path(path_type=Path))
@shared.path("--pictures", help="Folder of the certified pictures that are no generated ones.")
@click.option("--threads", type=click.IntRange(1), help="Of one run.")
def command(session: Session, file: Path, pictures: Path | None, threads: int | None) -> Result:
    """Check that an exported file is as it was certified.

    \b
    fcos verify exported/model.onnx
    fcos verify exported/model.onnx --pictures my/pictures

    Its digest must fit its contents, and in the pictures of its certificate it must find what the model found that it
    was made of. The digest tells whether a file was changed, not who made it. The exit code is 1 where something is
    wrong. Neither PyTorch nor Detectron2 is needed; for ONNX, `python fcos_runtime.py verify` beside the file does the
    same. Of OpenVINO, name the .xml.
    """
    from ..engines.files import told_as_ours
    from ..runtime import verdict, verify

    kind = file.suffix.lower()
    if kind in (".pt", ".pt2"):
        raise FcosError(f"{file} is a file of PyTorch, which has no digest: export it with --format onnx or openvino.")
    with told_as_ours(), session.waiting(f"checking {file}"):
        report = (_verify_xml if kind == ".xml" else verify)(file, pictures, threads)
    return Result(report, Text(verdict(report), "green" if report["ok"] else "red"), int(not report["ok"]))


def _verify_xml(file: Path, pictures: Path | None, threads: int | None) -> dict[str, Any]:
    from ..xmlseal import verify_xml  # and what reading XML needs

    return verify_xml(file, pictures, threads)
