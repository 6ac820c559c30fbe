"""A folder for a data set that is made: whole or not there, and nothing of anybody else's is replaced."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import FcosError
from ..files import write_json

__all__ = ["MARKER", "new_folder"]

MARKER = ".fcos_data.json"  # in a folder of ours: what it was made of, and a digest of its files


@contextmanager
def new_folder(target: Path, source: Path, record: Mapping[str, Any], overwrite: bool = False) -> Iterator[Path]:
    """An empty folder to write to, which takes the name of `target` when the block ends well, and else goes.

    Args:
        target: must not exist, or be empty; with `overwrite` it may hold what an earlier call made, unchanged since.
        source: what is read; the target must not lie in it.
        record: is kept in the folder; `record["command"]` tells what it is.
    Raises:
        FcosError: the target is none of these or cannot be written; nothing was changed then.
    """
    target = Path(os.path.abspath(target.expanduser()))
    if source.resolve() in (target.resolve(), *target.resolve().parents):
        raise FcosError(f"{target} lies in {source}, which is read: choose a folder beside it.")
    _require_free(target, overwrite)
    is_empty = target.is_dir() and not any(target.iterdir())
    name = f".{target.name}.{os.getpid()}.part"
    folder = target / name if is_empty else target.with_name(name)
    try:
        folder.mkdir(parents=True)
        yield folder
        write_json(folder / MARKER, {**record, "digest": _digest(folder)})
        if is_empty:  # it stays the folder that it is: the file system of another disk, say
            for path in sorted(folder.iterdir(), key=lambda path: path.name == MARKER):
                path.rename(target / path.name)
        else:
            _exchange(folder, target)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise FcosError(f"{target} cannot be written: {error.strerror or error}{where}.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _require_free(target: Path, overwrite: bool) -> None:
    """Raise FcosError if anything would be lost there."""
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise FcosError(f"{target} is there and is no folder: choose another name.")
    if not any(target.iterdir()):
        return
    made: Any = None
    with suppress(OSError, ValueError):
        made = json.loads((target / MARKER).read_bytes())
    if isinstance(made, dict) and made.get("digest") == _digest(target):
        if overwrite and not target.is_symlink():
            return
        raise FcosError(
            f"{target} holds what `{made.get('command')}` has made: replace it with --overwrite, or choose another "
            "folder."
        )
    changed = ", or whose files were changed since" if made is not None else ""
    raise FcosError(
        f"{target} holds files that this command did not make{changed}: choose another folder, nothing is replaced."
    )


def _digest(folder: Path) -> str:
    """Changes when a file below the folder comes, goes, or is written again."""
    found = hashlib.sha256()
    for path, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted([*files, *(name for name in folders if os.path.islink(os.path.join(path, name)))]):
            whole = os.path.join(path, name)
            inside = os.path.relpath(whole, folder)
            if inside != MARKER:
                seen = os.lstat(whole)
                found.update(os.fsencode(inside) + f"\0{seen.st_size} {seen.st_mtime_ns}\0".encode())
    return found.hexdigest()


def _exchange(folder: Path, target: Path) -> None:
    """Give a folder the name of another, which is ours, and remove that."""
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    if target.exists():
        target.rename(old)
    try:
        folder.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
