"""Where published files lie on this machine, what their digests are, and who may write them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from filelock import FileLock, Timeout

from ..errors import FcosError
from ..files import cache_folders, sha256_of, write_json
from ..zoo.addresses import ADDRESSES, Address
from ..zoo.checkpoints import DETECTORS
from .telling import tell

__all__ = ["folder_of", "found_elsewhere", "is_whole", "lock", "place_of", "read_record", "write_record"]

_WAIT = 30 * 60  # seconds for another process that fetches the same file


# Places


def place_of(row: Address) -> Path:
    """Where a published file lies below the cache folder and below a mirror: variant or address, then its name."""
    return _places().get(row.url) or Path("addresses", *_parts(row.url), row.file)


@cache
def _places() -> Mapping[str, Path]:
    places = {row.url: Path(*_parts(row.url, host=False), row.file) for row in ADDRESSES.values()}
    for name, row in reversed(DETECTORS.items()):  # two variants may share a file: the first has it
        places[row.url] = Path(name, row.file)
    return places


def _parts(url: str, host: bool = True) -> list[str]:
    """The folders of an address, none of which leads upwards; with its host, all of the address counts."""
    parsed = urlparse(url)
    clean = [re.sub(r"[^\w.+-]", "_", part) for part in parsed.path.split("/")[1:-1]]
    clean = [part for part in clean if part.strip(".")]
    return [re.sub(r"[^\w.-]", "_", parsed.netloc), sha256(url.encode()).hexdigest()[:12]] if host else clean


def folder_of(place: Path) -> Path:
    """The cache folder that has a place, else the one to put it into."""
    folders = cache_folders()[:1] if os.environ.get("FCOS_D2_CACHE") else cache_folders()
    folders = [folder / "weights" for folder in folders]
    there = next((folder for folder in folders if (folder / place).is_file()), None)
    return there or next(filter(_can_be_written, folders), folders[0])


def _can_be_written(folder: Path) -> bool:
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def found_elsewhere(row: Address) -> tuple[Path, bool] | None:
    """The file in the folder of PyTorch or of Detectron2's iopath, and whether its digest was checked.

    PyTorch's holds files of all projects by their bare names: only what has the published digest counts. iopath's goes
    by the path of the address, and writes a file whole or not at all.
    """
    home = os.path.expanduser("~")
    torch_home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or f"{home}/.cache", "torch")
    hub = Path(torch_home).expanduser() / "hub" / "checkpoints" / row.file
    iopath = Path(os.environ.get("FVCORE_CACHE") or f"{home}/.torch/iopath_cache").expanduser()
    with suppress(OSError):
        for file in (hub, *(iopath / urlparse(url).path.lstrip("/") for url in row.urls)):
            if file.is_file() and row.sha256 and sha256_of(file).startswith(row.sha256):
                return file, True
        file = iopath / urlparse(row.url).path.lstrip("/")
        if not row.sha256 and row.url in _places() and file.is_file() and file.stat().st_size:
            return file, False
    return None


# Digests


def _beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")


def read_record(file: Path) -> dict[str, Any]:
    """What was written down when a file came: at least its "sha256"; empty if nothing was."""
    with suppress(OSError, ValueError):
        said = json.loads(_beside(file).read_text(encoding="utf-8"))
        if isinstance(said, dict) and re.fullmatch("[0-9a-f]{64}", str(said.get("sha256", ""))):
            return said
    return {}


def write_record(file: Path, **facts: Any) -> None:
    """Write down the digest of a file, and facts, where the folder can be written."""
    with suppress(FcosError):
        write_json(_beside(file), {"sha256": sha256_of(file), "bytes": file.stat().st_size, **facts})


def is_whole(file: Path, published: str = "") -> bool:
    """Whether a file has the published digest, and the one that it had when it came."""
    if not file.is_file():
        return False
    expected = [digest for digest in (published, read_record(file).get("sha256", "")) if digest]
    if not expected:
        return True
    found = sha256_of(file)
    return all(found.startswith(digest) for digest in expected)


# Processes


@contextmanager
def lock(file: Path) -> Iterator[None]:
    """While it lasts, no other process writes this file; waits for one that does, and says so.

    Raises:
        FcosError: the folder cannot be written, or the other process takes too long.
    """
    held = FileLock(file.with_name(f".{file.name}.lock"))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            held.acquire(timeout=0)
        except Timeout:
            tell(f"Another process fetches {file.name}; waiting for it.")
            held.acquire(timeout=_WAIT)
    except Timeout as error:
        raise FcosError(f"{held.lock_file} has been held by another process for {_WAIT // 60} minutes.") from error
    except OSError as error:
        reason = error.strerror or error
        raise FcosError(
            f"The cache folder {file.parent} cannot be written ({reason}): set FCOS_D2_CACHE to a folder that can."
        ) from error
    try:
        yield
    finally:
        held.release()
