"""The results of a run as JSON Lines, written as it goes: what is done stays done, and a later run goes on."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import FcosError
from ..files import numbered, plain, write_atomically

__all__ = ["Journal"]

_NAME = "detections"


class Journal:
    """One JSON object a line: an image, a frame of a video, or a video that is done.

    A line is written with one call of the system. What a crash leaves half written at the end is cut off when the file
    is opened to go on, and so are the frames of a video that was not done.

    Args:
        folder: where it lies, as detections.jsonl; a number is added to the name where that is taken.
        run: what decides about the results besides the images: those of another run are not mixed in.
        resume: go on with the last one in the folder.

    Attributes:
        path: of the file.
        done: how often each image or video is in it.
        pictures: the paths of what was drawn for it.
        begun: of videos that were not done, what was drawn so far.

    Raises:
        FcosError: it cannot be written; or read, or is of another run.
    """

    def __init__(self, folder: Path, run: str, resume: bool = False) -> None:
        self.run, self.done = run, Counter[str]()
        self.pictures: set[Path] = set()
        self.begun: dict[str, Path] = {}
        free, last = _free(folder)
        self.path = last if resume and last else free
        if resume and last:
            self._mend()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0)
            self._file = os.open(self.path, flags if resume and last else flags | os.O_CREAT | os.O_EXCL, 0o644)
        except OSError as error:
            raise FcosError(f"{self.path} cannot be written: {error.strerror}.") from error

    @property
    def is_empty(self) -> bool:
        return self.path.stat().st_size == 0

    @property
    def stem(self) -> str:
        """The file's name without its ending, for what belongs to it."""
        return self.path.name.removesuffix(".jsonl")

    def add(self, row: Mapping[str, Any]) -> None:
        """Write one line.

        Raises:
            FcosError: it cannot be written (no space left, say).
        """
        text = json.dumps(plain({**row, "run": self.run}), ensure_ascii=False, allow_nan=False) + "\n"
        line = text.encode("utf-8", "backslashreplace")
        try:
            written = os.write(self._file, line)
        except OSError as error:
            raise FcosError(f"{self.path} cannot be written: {error.strerror}.") from error
        if written < len(line):
            raise FcosError(f"{self.path} cannot be written: is there space left?")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rows, as they were given to `add`."""
        with self.path.open(encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                del row["run"]
                yield row

    def close(self) -> None:
        """No more is written; a file without a line goes."""
        os.close(self._file)
        if self.is_empty:
            self.path.unlink()

    def _mend(self) -> None:
        """Cut off what is not whole, and see what is done."""
        videos = {row["video"] for _, row in self._rows() if row.get("complete")}
        kept = 0
        for line, row in self._rows():
            if "picture" in row:
                self.pictures.add(Path(row["picture"]))
                if not row.get("complete", True):
                    self.begun[row["video"]] = Path(row["picture"])
            if not _is_done(row, videos):
                continue
            kept += len(line)
            if "frame" not in row:
                self.done[row.get("video") or row["image"]] += 1
        if kept != self.path.stat().st_size:
            lines = (line for line, row in self._rows() if _is_done(row, videos))
            write_atomically(self.path, lambda file: file.writelines(lines))

    def _rows(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """Each line and what it says, read as they are asked for; a half one at the end is none."""
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return
                try:
                    row = json.loads(line)
                    there = isinstance(row, dict) and ("video" in row or "image" in row)
                except ValueError:
                    there = False
                if not there:
                    raise FcosError(
                        f"Line {number} of {self.path} is no result of this command, so it cannot be gone on with: "
                        "leave --resume out, or choose another --output."
                    )
                if row.get("run") != self.run:
                    raise FcosError(
                        f"{self.path} was made with other weights or options (--threshold, --tile, --every, ...): give "
                        "the same to go on with it, or leave --resume out."
                    )
                yield line, row


def _is_done(row: Mapping[str, Any], videos: Collection[str]) -> bool:
    """Whether a row stays when a run goes on; `videos` are those that are complete."""
    return row["image"] in videos if "frame" in row else row.get("complete", True)


def _free(folder: Path) -> tuple[Path, Path | None]:
    """The first name that nothing has, nor anything that belongs to it; and the last journal before it."""
    last = None
    try:
        names = os.listdir(folder)
    except OSError:
        names = []
    for path in numbered(folder, _NAME, ".jsonl"):
        stem = path.name.removesuffix(".jsonl")
        if path.name in names:
            last = path
        elif not any(name == stem or name.startswith(f"{stem}.") for name in names):
            return path, last
    raise AssertionError("there is always a name")
