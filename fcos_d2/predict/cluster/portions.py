"""What is to be looked at, in portions of some pictures each: files and addresses, or rows of Parquet files."""

from __future__ import annotations

import io
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ...data.images import decode
from ...data.sources import Source
from ...errors import FcosError
from ..look import Look

__all__ = ["FilePortion", "ParquetPortion", "Picture", "Portion", "count_of", "portions_of"]

_BYTES = ("image", "bytes", "image_bytes", "jpg", "jpeg", "png", "data")  # columns that hold pictures, the first first
_PATHS = ("path", "file_name", "filename", "image_path", "url", "image_url")  # columns that say where pictures lie
_AT_A_TIME = 16  # rows of a Parquet file that are in memory


@dataclass(frozen=True)
class Picture:
    """One picture: its name in the results, and how a look reads it, which raises FcosError."""

    where: str
    read: Callable[[Look], Any]
    drawn: str | None = None  # where it goes with its boxes


@dataclass(frozen=True)
class FilePortion:
    """Files and addresses."""

    number: int  # that no other portion of the run has
    places: tuple[tuple[str, str | None], ...]  # of each where it lies, and where it goes with its boxes

    @property
    def where(self) -> str:
        """What a person is told of the portion."""
        return f"{self.places[0][0]} and what follows it"

    def names(self) -> list[str]:
        return [where for where, _ in self.places]

    def pictures(self) -> Iterator[Picture]:
        for where, drawn in self.places:
            yield Picture(where, partial(_of_file, where), drawn)


@dataclass(frozen=True)
class ParquetPortion:
    """One group of rows of a Parquet file; a picture's name is that of the file, `#` and the number of its row."""

    number: int
    path: str
    group: int
    first: int  # number of the group's first row in the file
    rows: int
    done: frozenset[int] = frozenset()  # numbers in the file that are not looked at again

    @property
    def where(self) -> str:
        return f"{self.path}#{self.first} and what follows it"

    def names(self) -> list[str]:
        return [f"{self.path}#{row}" for row in range(self.first, self.first + self.rows) if row not in self.done]

    def pictures(self) -> Iterator[Picture]:
        """Raises FcosError if the file cannot be read any more."""
        number = self.first
        with _opened(self.path) as file:
            column = _column(file, self.path)
            for batch in file.iter_batches(_AT_A_TIME, row_groups=[self.group], columns=[column]):
                for value in batch.column(0):
                    if number not in self.done:
                        where = f"{self.path}#{number}"
                        yield Picture(where, partial(_of_cell, value.as_py(), where, Path(self.path).parent))
                    number += 1


def _of_file(where: str, look: Look) -> Any:
    return look.read(Source(where))


def _of_cell(value: Any, where: str, folder: Path, look: Look) -> Any:
    """A picture, or where it lies, as a Parquet file beside it says."""
    if isinstance(value, dict):  # of the Hugging Face libraries
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return look.frame(decode(io.BytesIO(value), where))
    if isinstance(value, str) and value:
        return look.read(Source(value if "://" in value else str(folder / value)))
    raise FcosError(f"{where} holds no picture.")


Portion = FilePortion | ParquetPortion


def portions_of(
    sources: Sequence[Source], done: Counter[str], size: int, draw: Callable[[Source], str] | None = None
) -> Iterator[Portion]:
    """Divide what is to be looked at.

    Args:
        sources: images, and Parquet files that hold them or say where they lie.
        done: how often each picture's name was looked at before.
        size: pictures of a portion of files; of a Parquet file, a portion is a group of rows.
        draw: where a picture goes with its boxes.
    Raises:
        FcosError: a Parquet file cannot be read, or no column of it is known to hold pictures; a source is a video.
    """
    numbers = itertools.count()
    for source in sources:
        if source.is_table:
            yield from _groups(source.where, done, numbers)
    places = _places([source for source in sources if not source.is_table], done.copy(), draw)
    while some := tuple(islice(places, size)):
        yield FilePortion(next(numbers), some)


def count_of(sources: Sequence[Source]) -> int:
    """How many pictures there are; raises FcosError as `portions_of` does."""
    tables = [source.where for source in sources if source.is_table]
    return len(sources) - len(tables) + sum(map(_rows, tables))


def _rows(path: str) -> int:
    with _opened(path) as file:
        _column(file, path)
        return file.metadata.num_rows


def _places(
    sources: Sequence[Source], done: Counter[str], draw: Callable[[Source], str] | None
) -> Iterator[tuple[str, str | None]]:
    for source in sources:
        if source.is_video:
            raise FcosError(f"{source.where} is a video, which one process looks at: leave --engine-cluster out.")
        if done[source.where]:
            done[source.where] -= 1
        else:
            yield source.where, draw(source) if draw else None


def _groups(path: str, done: Counter[str], numbers: Iterator[int]) -> Iterator[ParquetPortion]:
    with _opened(path) as file:
        _column(file, path)
        sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    first = 0
    for group, rows in enumerate(sizes):
        seen = frozenset(row for row in range(first, first + rows) if done[f"{path}#{row}"])
        if len(seen) < rows:
            yield ParquetPortion(next(numbers), path, group, first, rows, seen)
        first += rows


def _opened(path: str) -> Any:
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(path, pre_buffer=False)
    except FileNotFoundError as error:
        raise FcosError(f"The Parquet file {path} does not exist.") from error
    except (OSError, pyarrow.ArrowException) as error:
        raise FcosError(f"{path} cannot be read as a Parquet file: {str(error).splitlines()[0]}") from error


def _column(file: Any, path: str) -> str:
    """The column that holds pictures, or says where they lie."""
    names = file.schema_arrow.names
    for name in (*_BYTES, *_PATHS):
        if name in names:
            return name
    raise FcosError(
        f"{path} has no column of pictures ({', '.join(_BYTES)}) or of their places ({', '.join(_PATHS)}), "
        f"but {', '.join(names)}."
    )
