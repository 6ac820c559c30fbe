"""What people point at (files, folders, patterns, lists, addresses, cameras) -> images and videos, each by its name."""

from __future__ import annotations

import codecs
import glob
import io
import os
import re
import sys
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import FcosError
from ..files import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from ..paths import camera_of
from .download import content_type, download
from .images import decode, read_image

__all__ = ["TABLE_SUFFIXES", "Source", "download", "expand", "kind_of", "read", "require_any"]

_STREAMS = ("rtsp", "rtsps", "rtmp", "rtmps", "srt", "udp", "rtp")  # schemes that FFmpeg reads, without an end
_PLAYLISTS = (".m3u8", ".mpd")
_MOTION_JPEG = "multipart/x-mixed-replace"  # how cameras send one picture after the other over http
_LONGEST_NAME = 80
TABLE_SUFFIXES = (".parquet", ".pq")  # of tables whose rows are pictures


@dataclass(frozen=True)
class Source:
    """One image or video to read: a file, an address, or the number of a camera."""

    where: str

    @property
    def is_address(self) -> bool:
        return "://" in self.where

    @property
    def camera(self) -> int | None:
        """The number of the camera that is meant."""
        return None if Path(self.where).exists() else camera_of(self.where)

    @property
    def stem(self) -> str:
        """A name for what is made of it."""
        if self.camera is not None:
            return f"webcam-{self.camera}"
        path = urllib.parse.urlparse(self.where).path if self.is_address else self.where
        kept = "".join(c if c.isalnum() or c in "-_. " else "_" for c in Path(urllib.parse.unquote(path)).stem)
        return kept[:_LONGEST_NAME].strip() or "image"

    @property
    def suffix(self) -> str:
        """The ending of the name, with its dot, in lower case."""
        path = urllib.parse.urlparse(self.where).path if self.is_address else self.where
        return Path(path).suffix.lower()

    @property
    def is_table(self) -> bool:
        """Whether its rows are pictures, see `predict.cluster`."""
        return not self.is_address and self.suffix in TABLE_SUFFIXES

    @property
    def is_live(self) -> bool:
        """Whether it goes on until somebody stops it: a camera or a stream."""
        scheme = self.where.partition("://")[0].lower() if self.is_address else ""
        return self.camera is not None or scheme in _STREAMS

    @property
    def is_video(self) -> bool:
        """Whether it is a video, as far as its name says."""
        return self.is_live or self.suffix in (*VIDEO_SUFFIXES, *_PLAYLISTS)


def kind_of(source: Source, timeout: float = 20.0) -> str:
    """ "image", "video" or "live": by the name, and where an address has none, by what the server says.

    Raises:
        FcosError: such a server cannot be reached, or refuses.
    """
    if source.is_live:
        return "live"
    if source.is_video:
        return "video"
    if not source.is_address or source.suffix in IMAGE_SUFFIXES or not source.where.lower().startswith("http"):
        return "image"
    said = content_type(source.where, timeout)
    return "live" if said == _MOTION_JPEG else "video" if said.startswith("video/") or "mpegurl" in said else "image"


# Words on the command line -> sources


def expand(words: Sequence[str]) -> list[Source]:
    """The images and videos that the words on the command line stand for.

    A folder is all its images and videos but hidden ones, in order, or where there are none its Parquet files; a
    pattern (`shots/*.jpg`, `**` for any folder) what it matches; a .txt file the paths and addresses in its lines,
    relative ones from the working directory or else from the file's folder; `-` such lines on standard input; a number
    or `webcam` a camera.

    Raises:
        FcosError: a folder, a pattern or a list holds nothing to look at.
    """
    return [Source(where) for word in words for where in _meant(word)]


def require_any(sources: Sequence[Source]) -> None:
    """Raise FcosError if nothing of it is there, so that there is no use in reading weights first."""
    there = (s.is_address or s.camera is not None or Path(s.where).exists() for s in sources)
    if not any(there):
        raise FcosError(f"The image {sources[0].where} does not exist.")


def _meant(word: str) -> Iterable[str]:
    if not word.strip():  # a shell's variable that is not set; as a path it would be the working directory
        raise FcosError("An empty name stands for no image: name a file, a folder or an address, or `.` for all here.")
    kind = next(row for row in _KINDS if row.fits(word))
    return kind.sources(word)


@dataclass(frozen=True)
class _Kind:
    """One thing that a word may be."""

    fits: Callable[[str], bool]
    sources: Callable[[str], Iterable[str]]


def _in_folder(word: str) -> list[str]:
    folder = Path(word).expanduser()
    files = sorted(path for path in folder.rglob("*") if _is_seen(path, path.relative_to(folder).parts))
    files = files or sorted(path for path in folder.rglob("*") if path.suffix.lower() in TABLE_SUFFIXES)
    if not files:
        raise FcosError(f"The folder {word} holds no image ({', '.join(IMAGE_SUFFIXES)}) and no video.")
    return list(map(str, files))


def _matches(word: str) -> list[str]:
    paths = sorted(glob.glob(os.path.expanduser(word), recursive=True))
    looked_for = _looks if Path(word).suffix.lower() not in TABLE_SUFFIXES else lambda path: True
    found = [path for path in paths if Path(path).is_file() and looked_for(Path(path))]
    for folder in [path for path in paths if Path(path).is_dir() and "**" not in word]:
        inside = (path for path in Path(folder).rglob("*") if _is_seen(path, path.relative_to(folder).parts))
        found += map(str, sorted(inside))
    if not found:
        what = f"matches no image or video, but {len(paths)} other files" if paths else "matches nothing"
        raise FcosError(f"The pattern {word} {what}.")
    return found


def _in_list(word: str) -> Iterator[str]:
    path = Path(word).expanduser()
    data = path.read_bytes()
    if b"\0" in data and data[:2] not in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise FcosError(f"The list {word} is not text: one path or address a line is needed.")
    encoding = "utf-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"  # of Windows' shell
    lines = data.decode(encoding, errors="surrogateescape" if encoding == "utf-8-sig" else "replace").splitlines()
    return _from_lines(lines, path.parent, f"The list {word}")


def _on_input(word: str) -> Iterator[str]:
    return _from_lines(sys.stdin.read().splitlines(), Path(), "Standard input (-)")


def _from_lines(lines: Iterable[str], folder: Path, name: str) -> Iterator[str]:
    """What the lines of a list name; a list in a list is a file like any other, so there is no end of it to miss."""
    named = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not named:
        raise FcosError(f"{name} names no image: one path or address a line is needed.")
    for entry in named:
        beside = folder / entry
        plain = "://" in entry or Path(entry).expanduser().exists() or not beside.exists()
        word = entry if plain else str(beside)
        yield from _meant(word) if not _is_list(word) and word != "-" else [word]


def _looks(path: Path) -> bool:
    return path.suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)


def _is_seen(path: Path, parts: Sequence[str]) -> bool:
    """Whether a file is to be looked at by its name; hidden files and what a Mac adds to archives only look like it."""
    left = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not left and _looks(path) and path.is_file()


def _is_list(word: str) -> bool:
    return word.lower().endswith(".txt") and Path(word).expanduser().is_file()


def _is_folder(word: str) -> bool:
    return Path(word).expanduser().is_dir()


def _is_pattern(word: str) -> bool:
    return re.search(r"[*?[]", word) is not None and not Path(word).expanduser().exists()


# What a word is: the first row that fits.
_KINDS = (
    _Kind(lambda word: word == "-", _on_input),
    _Kind(lambda word: "://" in word, lambda word: [word]),
    _Kind(_is_folder, _in_folder),
    _Kind(_is_list, _in_list),
    _Kind(_is_pattern, _matches),
    _Kind(lambda word: True, lambda word: [str(Path(word).expanduser())]),
)


def read(source: Source, limit: int, timeout: float) -> np.ndarray:
    """Read an image as an upright (H, W, 3) RGB array in 0..255; see `download` for `limit` and `timeout`.

    Raises:
        FcosError: there is no such image, it cannot be fetched, or it is damaged.
    """
    if not source.is_address:
        return read_image(source.where)
    return decode(io.BytesIO(download(source.where, limit, timeout)), source.where)
