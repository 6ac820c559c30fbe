"""Files are written whole or not at all."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import FcosError

__all__ = [
    "IMAGE_SUFFIXES", "VIDEO_SUFFIXES", "cache_folders", "numbered", "os_error", "plain", "require_own_json",
    "require_writable", "sha256_of", "size_text", "temporary_folder", "write_atomically", "write_json",
]  # fmt: skip

IMAGE_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".bmp",
    ".tif",
    ".tiff",
    ".webp",
    ".gif",
    ".ppm",
    ".pgm",
    ".jfif",
    ".jp2",
    ".heic",
    ".heif",
    ".avif",
)
VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv", ".3gp", ".mjpeg", ".mjpg",
)  # fmt: skip


def numbered(folder: Path, stem: str, suffix: str = "") -> Iterator[Path]:
    """name.ext, name-2.ext, name-3.ext, ... without end."""
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    return (folder / f"{name}{suffix}" for name in names)


class Taken:
    """Paths that new files must not have; one that leads to the same file by another way is the same path."""

    def __init__(self, paths: Iterable[str | Path] = ()) -> None:
        self._real = {os.path.realpath(path) for path in paths}

    def __contains__(self, path: str | Path) -> bool:
        return os.path.realpath(path) in self._real

    def add(self, path: str | Path) -> None:
        self._real.add(os.path.realpath(path))


def sha256_of(path: str | Path) -> str:
    """The hexadecimal SHA-256 of a file's bytes; a large file does not fill the memory."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_atomically(path: str | Path, write: Any) -> None:
    """Write a temporary file in the same folder and rename it, so that a reader never sees a file half written.

    Args:
        path: the file; its folder is made.
        write: called with the temporary file, open for writing bytes.
    Raises:
        FcosError: it cannot be written (no space left, say); what was at `path` before is still there.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch.save turns a failed write into a RuntimeError
        cause = error if isinstance(error, OSError) else os_error(error)
        reason = cause.strerror if cause is not None and cause.strerror else str(error).splitlines()[0]
        kept = "; the file of that name is unchanged" if path.is_file() else ""
        raise FcosError(f"{path} cannot be written: {reason}{kept}.") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_json(path: str | Path, data: Mapping[str, Any]) -> None:
    """Write data, made `plain`, as JSON in a file that is whole or not there; raises as `write_atomically` does.

    A byte of a path that is no UTF-8 is written as JSON writes a lone surrogate.
    """
    text = json.dumps(plain(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode("utf-8", "backslashreplace")))


def plain(value: Any) -> Any:
    """A value as JSON has it: paths as text, tensors and arrays as lists, and null for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, os.PathLike):
        return str(value)
    return value


def os_error(error: BaseException | None) -> OSError | None:
    """The `OSError` that caused another error."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def _sync_folder(folder: Path) -> None:
    """Make the new name itself durable, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def require_own_json(path: Path, generator: str, option: str) -> None:
    """Raise FcosError if there is a file that is not of a command, which `generator` names; the option is to change."""
    try:
        held = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"generator": generator}
    except (OSError, ValueError):
        held = None
    if not isinstance(held, dict) or held.get("generator") != generator:
        raise FcosError(f"{path} is there already and not of `{generator}`: choose another name for {option}.")


def require_writable(folder: Path) -> None:
    """Raise FcosError if nothing can be written to an output folder, which need not exist yet."""
    there = next(path for path in (folder.expanduser(), *folder.expanduser().absolute().parents) if path.exists())
    if not there.is_dir():
        is_file = "is a file" if there == folder.expanduser() else f"cannot be written: {there} is a file"
        raise FcosError(f"The output folder {folder} {is_file}: choose another --output.")
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise FcosError(f"The output folder {folder} cannot be written: {error.strerror or error}.") from error


def temporary_folder() -> Path:
    """The user's own folder among the system's temporary ones; it may not exist yet."""
    user = os.getuid() if hasattr(os, "getuid") else "cache"  # a container's user may have no name
    return Path(tempfile.gettempdir()) / f"fcos_d2-{user}"


def cache_folders() -> list[Path]:
    """Folders for what can be had again: the user's ($FCOS_D2_CACHE, else fcos_d2 in $XDG_CACHE_HOME or ~/.cache).

    The last is a temporary one, for users without a home that can be written.
    """
    if chosen := os.environ.get("FCOS_D2_CACHE"):
        return [Path(chosen).expanduser(), temporary_folder()]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "fcos_d2")
    return [*([cache] if cache.is_absolute() else []), temporary_folder()]  # "~" stays where there is no home


def size_text(size: float) -> str:
    """Bytes in the unit that suits them, 1 MB being a million."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.1f} {unit}" if unit == "MB" else f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
