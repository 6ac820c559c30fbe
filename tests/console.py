"""The console script `fcos` as an installer writes it, whatever is installed beside the sources; or in this process."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from fcos_d2.cli import main

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent


def declared() -> dict:
    """What `pyproject.toml` says."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


def install(folder: Path) -> list[str]:
    """Write the script and the module that it begins in, both as `pyproject.toml` declares them.

    Returns:
        The beginning of a command line.
    """
    project = declared()
    module, _, function = project["project"]["scripts"]["fcos"].partition(":")
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    source = next(source for source, target in included.items() if target == f"{module}.py")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / source, folder / f"{module}.py")
    lines = [f"sys.path[:0] = [{str(folder)!r}, {str(ROOT)!r}]", f"from {module} import {function}"]
    script = folder / "fcos"
    script.write_text(
        "\n".join(["import sys", *lines, "if __name__ == '__main__':", f"    sys.exit({function}())", ""])
    )
    return [sys.executable, str(script)]


def environment(**more: str) -> dict[str, str]:
    """Of a process that runs the script: one thread, and a terminal of 100 columns."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", **more}


class Outcome(NamedTuple):
    """Of a command in this process."""

    code: int
    out: str
    err: str


def in_process(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Callable[..., Outcome]:
    """What runs `fcos *words` in this process, as the console script does."""

    def run(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["fcos", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return Outcome(ended.value.code, *capfd.readouterr())

    return run
