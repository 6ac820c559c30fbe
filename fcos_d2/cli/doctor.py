"""`fcos doctor`: what is installed, what this machine has, and the line that mends what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..words import memory_size
from .session import Result, Session, fcos_command

if TYPE_CHECKING:
    from ..health import Finding, Inventory

_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


@fcos_command("doctor")
def command(session: Session) -> Result:
    """Say what is installed, which devices there are, and what is missing or does not fit, with the line that mends it.

    It works without PyTorch and Detectron2, and changes nothing. The exit code is 1 if something would keep training or
    detection from running.
    """
    with session.waiting("looking"):
        import fcos_d2

        from ..health import examine, take_inventory
        from ..health.inventory import system

        inventory = take_inventory()
        findings = examine(inventory)
    failed = any(finding.severity == "error" for finding in findings)
    known = {"fcos_d2": fcos_d2.__version__, "system": system()}
    data = {**known, "ok": not failed, **asdict(inventory), "findings": [asdict(finding) for finding in findings]}
    return Result(data, _view(known, inventory, findings), exit_code=1 if failed else 0)


def _view(known: Mapping[str, str], inventory: Inventory, findings: list[Finding]) -> Any:
    versions = Table.grid(padding=(0, 2))
    flavour = inventory.detectron2 or "not installed"
    rows = [("fcos_d2", f"{known['fcos_d2']}, {known['system']}"), ("detectron2", flavour), *inventory.versions.items()]
    for name, version in rows:
        versions.add_row(Text(f"  {name}"), _version(version))
    optional = Table.grid(padding=(0, 2))
    for name, version in inventory.optional.items():
        optional.add_row(Text(f"  {name}"), _version(version))
    devices = Table.grid(padding=(0, 2))
    for name, text in _devices(inventory):
        devices.add_row(Text(f"  {name}"), Text(text))
    lines: list[Any] = [Text("Installed", "bold"), versions, Text("\nOptional", "bold"), optional]
    lines += [Text("\nThis machine", "bold"), devices, Text("\nTo mend" if findings else "", "bold")]
    for finding in findings:
        lines.append(Text.assemble((f"  {finding.severity}: ", _STYLES[finding.severity]), finding.what))
        lines.append(Text(f"    {finding.mend}", "cyan", no_wrap=True, overflow="ignore"))
    return Group(*lines, *([] if findings else [Text("Nothing is missing.", "bold green")]))


def _version(version: str | None) -> Text:
    return Text("not installed", "dim") if version is None else Text(version)


def _devices(inventory: Inventory) -> list[tuple[str, str]]:
    def size(number: int | None) -> str:
        return "unknown" if number is None else memory_size(number)

    gpus = [(f"GPU {i}", f"{gpu.name}, {size(gpu.memory)}") for i, gpu in enumerate(inventory.torch_gpus)]
    gpus = gpus or [(f"GPU {i}", f"{gpu.name}, not used by PyTorch") for i, gpu in enumerate(inventory.driver_gpus)]
    cuda = [("CUDA of PyTorch", inventory.cuda or "none: built for the CPU")] if inventory.versions.get("torch") else []
    driver = [("NVIDIA driver", inventory.driver)] if inventory.driver else []
    state = f"{inventory.cache}, {size(inventory.cache_free)} free"
    return [
        *(gpus or [("GPU", "none")]), *cuda, *driver, ("CPU cores", str(inventory.cores)),
        ("memory", size(inventory.memory)), ("/dev/shm", size(inventory.shared_memory)),
        ("cache", state if inventory.cache_is_writable else f"{inventory.cache}, which cannot be written"),
    ]  # fmt: skip
