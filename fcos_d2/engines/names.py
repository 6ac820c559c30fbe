"""The engines by name, and which of them run a file here."""

from __future__ import annotations

from pathlib import Path

from ..errors import FcosError
from ..libraries import is_installed
from ..paths import is_exported

__all__ = ["ENGINES", "able", "require_engine"]

ENGINES = ("torch", "onnx", "openvino")  # the names that `--engine` takes, besides auto
_PACKAGES = {"torch": "torch", "onnx": "onnxruntime", "openvino": "openvino"}


def require_engine(name: str) -> None:
    """Raise FcosError if there is no engine of that name."""
    if name not in (*ENGINES, "auto"):
        raise FcosError(f"There is no engine {name!r}: use {', '.join(ENGINES)} or auto.")


def able(weights: str | Path) -> list[str]:
    """The engines that are installed and run such a file."""
    fitting: tuple[str, ...] = ENGINES
    if is_exported(weights):
        fitting = ("onnx", "openvino") if Path(weights).suffix.lower() == ".onnx" else ("openvino",)
    return [name for name in fitting if is_installed(_PACKAGES[name])] or list(fitting[:1])
