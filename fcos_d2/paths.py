"""Where config files are, and what a word stands for: a config, a checkpoint, a camera; PyTorch is not needed."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlparse

from .errors import FcosError

__all__ = [
    "CHECKPOINTS", "CONFIGS", "EXPORTED", "HUB", "HUB_FILE", "camera_of", "config_root", "is_address", "is_exported",
    "is_repository", "require_checkpoint", "require_config",
]  # fmt: skip

CHECKPOINTS = (".pth", ".pt", ".pkl", ".pyth", ".bin", ".safetensors")
CONFIGS = (".py", ".yaml", ".yml")
HUB, HUB_FILE = "hf://", "model.safetensors"  # how the Hugging Face Hub names a detector, and what that has
# What `fcos export` writes that runs without PyTorch -> the engine it is for.
EXPORTED = {".onnx": "onnx", ".xml": "openvino"}


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


def is_address(path: str) -> bool:
    """Whether it names something to download (https://, detectron2://, torchvision://, ...) rather than a file."""
    return len(urlparse(path).scheme) > 1


def is_repository(name: str | None) -> bool:
    """Whether it names a detector in the layout of the Hugging Face Hub: hf://owner/name, or its folder."""
    return name is not None and (name.startswith(HUB) or (Path(name).expanduser() / HUB_FILE).is_file())


def is_exported(path: str | Path | None) -> bool:
    """Whether a name is that of a file of `fcos export` which runs without PyTorch."""
    return path is not None and Path(path).suffix.lower() in EXPORTED


def require_checkpoint(path: str | Path) -> Path:
    """The file, with ~ expanded; raises FcosError if there is none."""
    file = Path(path).expanduser()
    if file.is_dir():
        raise FcosError(f"The checkpoint {file} is a folder: name the file in it.")
    if not file.is_file():
        raise FcosError(f"The checkpoint {file} does not exist.")
    return file


def require_config(path: str | Path) -> Path:
    """The config file or checkpoint, with ~ expanded; raises FcosError if there is none."""
    file = Path(path).expanduser()
    if not file.is_file():
        kind = "config" if file.suffix.lower() in CONFIGS else "checkpoint"
        raise FcosError(f"The {kind} file {path} does not exist.")
    return file


def camera_of(word: str) -> int | None:
    """The number of the camera that a word on the command line means (`0`, `webcam`, `webcam:1`); None for others."""
    found = re.fullmatch(r"(?:webcam:)?(\d{1,2})|webcam", word, re.IGNORECASE)
    return int(found[1] or 0) if found else None
