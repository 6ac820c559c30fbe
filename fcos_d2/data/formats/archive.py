"""Archives of data sets, unpacked once into the cache folder.

Each file is checked before anything is written: no name may lead out of the folder, links are left out, and what is
unpacked may neither be larger than the limits nor grow much more than data grow.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path, PurePosixPath

from ...errors import FcosError
from ...files import cache_folders, sha256_of
from ..meant import shown

__all__ = ["unpacked"]

LARGEST = 200 << 30  # bytes of all files; COCO's have 25 GB
MOST_FILES = 5_000_000
_MOST_GROWTH = 200  # times the size of the archive, beyond `_SMALL`; deflate gives text about 10, zeros 1030
_SMALL = 256 << 20  # bytes that any archive may have unpacked
_BLOCK = 1 << 20


def unpacked(path: Path) -> Path:
    """The folder with the content of a .zip, unpacked now or by an earlier call, under a name that holds its hash.

    Raises:
        FcosError: it is no such archive, damaged, encrypted, larger than the limits, or has a name that leads outside;
            or there is no room.
    """
    label = re.sub(r"[^\w.-]+", "_", path.stem)[:60] or "data"
    name = f"{label}-{_hash(path)[:16]}"
    problems = []
    for cache in cache_folders():
        target = cache / "unpacked" / name
        if target.is_dir():
            return target
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=target.parent))
        except OSError as error:
            problems.append(f"{target.parent}: {error.strerror or error}")
            continue
        try:
            _unpack(path, temporary)
            with suppress(OSError):  # another process was first
                os.rename(temporary, target)
            return target
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    raise FcosError(
        f"{path} cannot be unpacked ({'; '.join(problems)}): set FCOS_D2_CACHE to a folder that can be written, or "
        "unpack it yourself and give the folder."
    )


def _hash(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise FcosError(f"{path} cannot be read: {error.strerror or error}.") from error


def _unpack(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = _checked(path, archive)
            room = shutil.disk_usage(folder).free
            total = sum(entry.file_size for entry in entries)
            if total > room:
                raise FcosError(f"{path} needs {total >> 20} MiB in {folder.parent}, where {room >> 20} MiB are free.")
            for entry in entries:
                _write(archive, entry, folder / _name(entry))
    except FcosError:
        raise
    except Exception as error:  # a damaged archive raises anything, from zlib.error to struct.error
        why = getattr(error, "strerror", None) or str(error).rstrip(".") or type(error).__name__
        raise FcosError(f"{path} cannot be unpacked: {shown(why)}.") from error


def _checked(path: Path, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The files of an archive; raises FcosError if it may not be unpacked."""
    entries, total = [], 0
    infos = archive.infolist()
    if len(infos) > MOST_FILES:
        raise FcosError(f"{path} has {len(infos)} files; {MOST_FILES} are the limit.")
    for entry in infos:
        name = entry.filename.replace("\\", "/")
        if re.match(r"/|[A-Za-z]:", name) or ".." in PurePosixPath(name).parts or "\0" in name:
            raise FcosError(f"{path} has a file that leads outside of it, {shown(name)}, so nothing of it is read.")
        if entry.is_dir() or stat.S_ISLNK(entry.external_attr >> 16) or not _name(entry).name:
            continue
        if entry.flag_bits & 1:
            raise FcosError(f"{path} is encrypted: unpack it yourself and give the folder.")
        total += entry.file_size
        entries.append(entry)
    if not entries:
        raise FcosError(f"{path} holds no file.")
    if total > min(LARGEST, max(_SMALL, _MOST_GROWTH * path.stat().st_size)):
        raise FcosError(
            f"{path} would grow from {path.stat().st_size >> 10} KiB to {total >> 20} MiB, which no data set does: "
            "unpack it yourself if you trust it, and give the folder."
        )
    return entries


def _name(entry: zipfile.ZipInfo) -> Path:
    return Path(*PurePosixPath(entry.filename.replace("\\", "/")).parts)


def _write(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    """Write a file, of no more bytes than the archive's directory says."""
    target.parent.mkdir(parents=True, exist_ok=True)
    left = entry.file_size
    with archive.open(entry) as source, target.open("wb") as file:
        while block := source.read(min(_BLOCK, left + 1)):
            left -= len(block)
            if left < 0:
                raise FcosError(f"{archive.filename} has more in {shown(entry.filename)} than it says; it is damaged.")
            file.write(block)
