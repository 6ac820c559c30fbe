"""Where the config files are, in a clone and in an installed package."""

from __future__ import annotations

from pathlib import Path


def config_root() -> Path:
    """Folder that holds `common/`, the families' configs and `yaml/`.

    Raises:
        FileNotFoundError: the installation is incomplete.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "_configs", package.parent / "configs"):
        if (folder / "common" / "train.py").is_file():
            return folder
    raise FileNotFoundError(f"No config files beside {package}: install fcos_d2 again, or run it from a clone.")
