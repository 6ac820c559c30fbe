"""What of an installation is missing or does not fit, each with the one line that mends it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..libraries import OFFICIAL
from ..words import memory_size
from .inventory import OPENCV, Inventory

__all__ = ["CHECKS", "ERROR", "NOTE", "WARNING", "Finding", "examine"]

ERROR, WARNING, NOTE = "error", "warning", "note"  # training cannot run; it will run badly; it may matter to some
_LEAST_SHARED = 1 << 30  # bytes of /dev/shm that data workers need
_LEAST_FREE = 2 << 30  # bytes of the cache folder's disk: the largest published weights, twice

_NEEDED = ("numpy", "pillow", "matplotlib", "pycocotools", "opencv-python")  # also where our metadata is absent
_PYTORCH = "pip install torch torchvision"
_DETECTRON2 = f"uv sync --extra detectron2 (in a clone of fcos_d2), or {OFFICIAL}"


@dataclass(frozen=True)
class Finding:
    """Something to mend."""

    severity: str  # ERROR, WARNING or NOTE
    what: str
    mend: str  # a line for a shell, or what to do


def examine(inventory: Inventory) -> list[Finding]:
    """What is missing or does not fit, errors first."""
    found = [finding for check in CHECKS for finding in check(inventory)]
    return sorted(found, key=lambda finding: (ERROR, WARNING, NOTE).index(finding.severity))


def _pytorch(machine: Inventory) -> Iterator[Finding]:
    torch, vision = machine.versions.get("torch"), machine.versions.get("torchvision")
    if torch is None:
        yield Finding(ERROR, "PyTorch is not installed.", _PYTORCH)
    elif vision is None:
        yield Finding(
            ERROR, "torchvision is not installed.", f"pip install torchvision torch=={torch.partition('+')[0]}"
        )
    elif machine.pairs and not any(_fits(torch, pair) for pair in machine.pairs):
        text = f"torchvision {vision} was built for PyTorch {machine.pairs[0].lstrip('=')}, but {torch} is installed."
        yield Finding(
            ERROR, text, f"pip install --upgrade --force-reinstall torch{machine.pairs[0]} torchvision=={vision}"
        )


def _fits(version: str, specifier: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(specifier).contains(version, prereleases=True)


def _detectron2(machine: Inventory) -> Iterator[Finding]:
    if machine.detectron2 is None:
        yield Finding(ERROR, "Detectron2 is not installed.", _DETECTRON2)
    elif not machine.has_pkg_resources:
        version = machine.versions.get("setuptools")
        text = f"Detectron2 imports pkg_resources, which setuptools {version or '(not installed)'} does not have."
        yield Finding(ERROR, text, "pip install 'setuptools<81'")


def _imports(machine: Inventory) -> Iterator[Finding]:
    mends = {
        "torch": f"pip install --force-reinstall torch=={(machine.versions.get('torch') or '').partition('+')[0]}",
        "torchvision": "pip install --upgrade --force-reinstall torch torchvision",
        "detectron2": OFFICIAL.replace("install", "install --force-reinstall --no-deps"),  # compiled for this PyTorch
        "PIL": "pip install --force-reinstall pillow",
    }
    for module, reason in machine.broken.items():
        mend = mends.get(module, f"pip install --force-reinstall {module}")
        if module == "cv2":
            lacks = "cannot open shared object" in reason
            mend = "apt-get install libgl1 libglib2.0-0" if lacks else "pip install --force-reinstall opencv-python"
        if module != "detectron2" or machine.has_pkg_resources:  # that is said already
            yield Finding(ERROR, f"{module} is installed but cannot be imported: {reason.rstrip('.')}.", mend)


def _requirements(machine: Inventory) -> Iterator[Finding]:
    named = {name: name for name in _NEEDED if name in machine.versions and not machine.versions[name]}
    named |= {re.split(r"[<>=!~ ]", requirement)[0]: requirement for requirement in machine.unmet}
    for name, requirement in named.items():
        if name in ("torch", "torchvision", "setuptools"):  # said by other checks
            continue
        version = machine.versions.get(name)
        there = f"{version} is installed" if version else "it is not installed"
        if name == "hotcoco":
            text = f"{requirement} makes evaluation faster, but {there}."
        else:
            text = f"{requirement} is required, but {there}."
        severity = NOTE if name == "hotcoco" else WARNING if version else ERROR
        yield Finding(severity, text, f"pip install '{requirement}'")


def _opencv(machine: Inventory) -> Iterator[Finding]:
    there = [name for name in OPENCV if machine.versions.get(name)]
    if len(there) > 1:
        mend = f"pip uninstall -y {' '.join(there)} && pip install opencv-python"
        yield Finding(WARNING, f"{' and '.join(there)} are installed and overwrite each other's files.", mend)


def _gpus(machine: Inventory) -> Iterator[Finding]:
    torch, names = machine.versions.get("torch"), ", ".join(gpu.name for gpu in machine.driver_gpus)
    if torch is None or not machine.driver_gpus:
        return
    if machine.cuda is None:
        mend = f"pip install --force-reinstall torch=={torch.partition('+')[0]} torchvision (a build for CUDA)"
        yield Finding(
            WARNING, f"This machine has a GPU ({names}), but PyTorch {torch} is built for the CPU alone.", mend
        )
    elif machine.hidden:
        yield Finding(WARNING, f"CUDA_VISIBLE_DEVICES hides all GPUs ({names}).", "unset CUDA_VISIBLE_DEVICES")
    elif not machine.torch_gpus:
        why = f" ({machine.torch_says.rstrip('.')})" if machine.torch_says else ""
        driver = f"driver {machine.driver}" if machine.driver else "a driver of unknown version"
        text = f"PyTorch, built for CUDA {machine.cuda}, cannot use the GPU ({names}, {driver}){why}."
        yield Finding(
            WARNING, text, f"update the NVIDIA driver to one for CUDA {machine.cuda}, or install an older PyTorch"
        )
    for name in machine.unsupported:
        mend = "pip install --upgrade torch torchvision (a build that has code for it)"
        yield Finding(WARNING, f"PyTorch {torch} has no code for {name}.", mend)
    if machine.torch_gpus and machine.versions.get("triton") is None:
        yield Finding(NOTE, "Triton is not installed, so the fused loss kernel is not used.", "pip install triton")


def _room(machine: Inventory) -> Iterator[Finding]:
    if machine.shared_memory is not None and machine.shared_memory < _LEAST_SHARED:
        text = f"/dev/shm has {memory_size(machine.shared_memory)}: data workers may run out of it."
        yield Finding(WARNING, text, "docker run --shm-size=8g ..., or fcos train --workers 0")
    if not machine.cache_is_writable:
        mend = "export FCOS_D2_CACHE=/a/folder/that/can/be/written"
        yield Finding(WARNING, f"The cache folder {machine.cache} cannot be written: weights are kept elsewhere.", mend)
    elif machine.cache_free is not None and machine.cache_free < _LEAST_FREE:
        text = f"The disk of the cache folder {machine.cache} has {memory_size(machine.cache_free)} left."
        yield Finding(WARNING, text, "free some of it, or export FCOS_D2_CACHE=/a/folder/on/another/disk")


def _fonts(machine: Inventory) -> Iterator[Finding]:
    if lacking := [script for script, there in machine.fonts.items() if not there]:
        text = f"No font here has letters of {', '.join(lacking)}: such class names are drawn by number."
        yield Finding(NOTE, text, "apt-get install fonts-noto-cjk fonts-noto-core")


CHECKS: tuple[Callable[[Inventory], Iterator[Finding]], ...] = (
    _pytorch, _detectron2, _imports, _requirements, _opencv, _gpus, _room, _fonts,
)  # fmt: skip
