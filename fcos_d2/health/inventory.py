"""What is installed, and what this machine has: facts, without a verdict."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["OPENCV", "Gpu", "Inventory", "take_inventory"]

OPENCV = (
    "opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless",
)  # fmt: skip
# Shown in this order whether they are there or not, besides what our own metadata lists.
_SHOWN = ("torch", "torchvision", "numpy", "pillow", "hotcoco", "pycocotools", "triton", "matplotlib", "setuptools")
_OPTIONAL = ("tensorboard", "wandb", "mlflow")
_SMALLER = {"mlflow": "mlflow-skinny"}  # distributions that bring the same module
# Modules that must load, and what each of them may raise: a library of the system is missing, versions do not fit.
_IMPORTED = ("torch", "torchvision", "detectron2", "cv2", "PIL")


@dataclass(frozen=True)
class Gpu:
    """A GPU, as the driver or PyTorch names it."""

    name: str
    memory: int | None = None  # bytes


@dataclass(frozen=True)
class Inventory:
    """Facts about an installation; sizes are bytes, None is unknown or absent."""

    versions: Mapping[str, str | None]  # of distributions
    optional: Mapping[str, str | None] = field(default_factory=dict)  # of those that some options need
    unmet: Sequence[str] = ()  # requirements of ours that what is installed does not fulfil
    pairs: Sequence[str] = ()  # versions of PyTorch that torchvision was built for
    detectron2: str | None = None  # flavour, see `_compat`
    has_pkg_resources: bool = True
    broken: Mapping[str, str] = field(default_factory=dict)  # module -> why it cannot be imported
    cuda: str | None = None  # version that PyTorch was built for
    driver: str | None = None
    driver_gpus: Sequence[Gpu] = ()  # that the driver lists
    torch_gpus: Sequence[Gpu] = ()  # that PyTorch can use
    torch_says: str = ""  # why it can use none
    unsupported: Sequence[str] = ()  # GPUs that this PyTorch has no code for
    hidden: bool = False  # whether CUDA_VISIBLE_DEVICES hides all GPUs
    cores: int = 1
    memory: int | None = None
    shared_memory: int | None = None  # of /dev/shm
    cache: str = ""
    cache_is_writable: bool = True
    cache_free: int | None = None
    fonts: Mapping[str, bool] = field(default_factory=dict)  # script -> whether a font has its letters


def take_inventory() -> Inventory:
    """Look at this installation and machine; imports what is there, which takes seconds."""
    versions = {name: _version(name) for name in _SHOWN}
    opencv = {name: version for name in OPENCV if (version := _version(name))}
    broken = {name: fault for name in _IMPORTED if (fault := _fault(name))}
    torch = sys.modules.get("torch") if "torch" not in broken else None
    driver, driver_gpus = _driver()
    cache, writable, free = _cache()
    return Inventory(
        versions={**versions, **(opencv or {"opencv-python": None})},
        optional={
            name: _version(name) or _version(_SMALLER.get(name, name))
            for name in dict.fromkeys((*_OPTIONAL, *_extras()))
        },
        unmet=_unmet(), pairs=_built_for(), detectron2=_flavour(), has_pkg_resources=_has("pkg_resources"),
        broken=broken, driver=driver, driver_gpus=driver_gpus, **_cuda(torch),
        hidden=os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"), cores=_cores(), memory=_memory(),
        shared_memory=_size_of(Path("/dev/shm")), cache=str(cache), cache_is_writable=writable, cache_free=free,
        fonts=_fonts(),
    )  # fmt: skip


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _requirements() -> list[Any]:
    """Our own requirements, as `packaging` reads them; none where that or our metadata is absent."""
    try:
        from packaging.requirements import Requirement

        return [Requirement(text) for text in metadata.requires("fcos_d2") or ()]
    except (ImportError, metadata.PackageNotFoundError):
        return []


def _extras() -> list[str]:
    """Libraries of our extras but Detectron2."""
    chosen = [r.name for r in _requirements() if r.marker is not None and "extra" in str(r.marker)]
    return [name for name in chosen if "detectron2" not in name]


def _unmet() -> list[str]:
    """Requirements without an extra that nothing installed fulfils."""
    found = []
    for requirement in _requirements():
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        there = [v for name in _twins(requirement.name) if (v := _version(name))]
        if not any(requirement.specifier.contains(version, prereleases=True) for version in there):
            found.append(f"{requirement.name}{requirement.specifier}")
    return found


def _twins(name: str) -> tuple[str, ...]:
    """Distributions that bring the same module."""
    return OPENCV if name == "opencv-python" else (name,)


def _built_for() -> list[str]:
    """What torchvision's own metadata says of PyTorch, e.g. ["==2.14.1"]."""
    with suppress(ImportError, metadata.PackageNotFoundError):
        from packaging.requirements import Requirement

        rows = [Requirement(text) for text in metadata.requires("torchvision") or ()]
        return [str(row.specifier) for row in rows if row.name == "torch" and row.specifier]
    return []


def _flavour() -> str | None:
    with suppress(ImportError):
        from .._compat import DETECTRON2_FLAVOUR

        return DETECTRON2_FLAVOUR
    return None


def _has(module: str) -> bool:
    with suppress(ImportError, ValueError):
        return importlib.util.find_spec(module) is not None
    return False


def _fault(module: str) -> str:
    """Why a module cannot be imported; empty if it can, or is not there at all."""
    if not _has(module):
        return ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if module == "detectron2":
                importlib.import_module("fcos_d2._compat").mend()
            importlib.import_module(module)
    except Exception as error:  # OSError of a missing library, RuntimeError of versions that do not fit, and others
        return " ".join(str(error).split())[:300] or type(error).__name__
    return ""


def _driver() -> tuple[str | None, list[Gpu]]:
    """Version and GPUs of the NVIDIA driver, asked without PyTorch."""
    command = ["nvidia-smi", "--query-gpu=driver_version,name,memory.total", "--format=csv,noheader,nounits"]
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        text = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=20, check=True).stdout
        rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.strip()]
        found = [Gpu(row[1], int(row[2]) << 20 if row[2].isdigit() else None) for row in rows if len(row) == 3]
        return (rows[0][0] if rows else None), found
    return None, [Gpu(path.name) for path in sorted(Path("/dev").glob("nvidia[0-9]*"))]


def _cuda(torch: Any) -> dict[str, Any]:
    """What PyTorch knows of GPUs, as fields of `Inventory`."""
    if torch is None:
        return {}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        there = torch.cuda.is_available()
    gpus: list[Gpu] = []
    unsupported: list[str] = []
    for number in range(torch.cuda.device_count() if there else 0):
        with suppress(Exception):  # a GPU in a state that nothing can be asked of
            found = torch.cuda.get_device_properties(number)
            gpus.append(Gpu(found.name, found.total_memory))
            known = [name for name in torch.cuda.get_arch_list() if name.startswith(f"sm_{found.major}")]
            later = [name for name in torch.cuda.get_arch_list() if name.startswith("compute_")]
            unsupported += [] if known or later else [found.name]
    text = " ".join(" ".join(str(warning.message) for warning in said).split())
    return {"cuda": torch.version.cuda, "torch_gpus": gpus, "torch_says": text[:300], "unsupported": unsupported}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> int | None:
    """Of the machine, or of the container where that has less."""
    found = []
    with suppress(OSError, ValueError, AttributeError):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            found.append(int(Path(path).read_text(encoding="ascii")))
    return min(found, default=None)


def _size_of(folder: Path) -> int | None:
    with suppress(OSError):
        return shutil.disk_usage(folder).total
    return None


def _cache() -> tuple[Path, bool, int | None]:
    """The first cache folder, whether it can be written, and the room there."""
    from ..files import cache_folders

    folder = cache_folders()[0]
    there = next(path for path in (folder, *folder.parents) if path.exists())
    writable = False
    with suppress(OSError):
        tempfile.TemporaryFile(dir=there).close()
        writable = True
    free = None
    with suppress(OSError):
        free = shutil.disk_usage(there).free
    return folder, writable, free


def _fonts() -> dict[str, bool]:
    """Scripts -> whether a font of the system has a letter of it."""
    with suppress(Exception):  # no matplotlib, no Pillow, or fonts that it stumbles over
        from ..visualize.fonts import legible

        letters = {"Chinese and Japanese": "猫", "Korean": "개", "Arabic": "ق", "Devanagari": "क", "Cyrillic": "я"}
        return {script: legible(letter) == letter for script, letter in letters.items()}
    return {}


def system() -> str:
    """Python and operating system."""
    return f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
