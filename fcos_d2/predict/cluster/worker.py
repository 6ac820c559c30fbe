"""What each process of a cluster does: a portion of pictures -> rows of results, and what cannot be looked at."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch

from ...errors import FcosError
from ...files import plain
from ...visualize import save_picture
from ..batches import answers
from ..job import row_of
from ..look import Look
from .portions import Picture, Portion

__all__ = ["Attempts", "Worker"]

Key = tuple[int, int]  # numbers of a portion, and of a picture in it
MOST_DEATHS = 2  # of processes, while they looked at one picture


class Attempts:
    """How often each picture that nobody has finished was begun, as all workers know it: what a dead one held."""

    def __init__(self) -> None:
        self._begun = Counter[Key]()

    def begun(self, keys: Sequence[Key]) -> list[int]:
        """How often each of them was begun and not ended."""
        return [self._begun[key] for key in keys]

    def begin(self, keys: Sequence[Key]) -> None:
        self._begun.update(keys)

    def end(self, keys: Sequence[Key]) -> None:
        for key in keys:
            self._begun.pop(key, None)


class Known(Protocol):
    """`Attempts`, here or in another process."""

    def begun(self, keys: Sequence[Key]) -> list[int]: ...

    def begin(self, keys: Sequence[Key]) -> None: ...

    def end(self, keys: Sequence[Key]) -> None: ...


class Worker:
    """Looks at portions; one process has one, with a detector of its own.

    A picture that cannot be looked at is set aside with the reason, whatever that is. A process that died is started
    anew by whoever started it, and gets its portion again: then pictures are looked at one by one, and the one that
    `MOST_DEATHS` processes died with is set aside.

    Args:
        look: makes how the detector looks at an image, called once.
        attempts: common to all workers.
        threads: of PyTorch.
    """

    def __init__(self, look: Callable[[], Look], attempts: Known, threads: int | None = None) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.look, self.attempts = look(), attempts

    def __call__(self, batch: Mapping[str, Iterable[Portion]]) -> Iterator[dict[str, list[str]]]:
        """The form that Ray Data asks for: portions in, rows as JSON texts out."""
        for portion in batch["portion"]:
            for rows in self.rows(portion):
                yield {"row": [json.dumps(plain(row), ensure_ascii=False) for row in rows]}

    def rows(self, portion: Portion) -> Iterator[list[dict[str, Any]]]:
        """Rows as those of a `DetectionJob`, some at a time; `{"image", "error"}` for what is set aside.

        Each also has its "key": the numbers of the portion, and of the picture in it.
        """
        pictures = enumerate(portion.pictures())
        try:
            while some := [((portion.number, i), picture) for i, picture in islice(pictures, 4 * self.look.batch)]:
                before = self.attempts.begun([key for key, _ in some])
                for times, keyed in zip(before, some) if any(before) else ():
                    yield self._set_aside(*keyed) if times >= MOST_DEATHS else self._looked_at([keyed])
                if not any(before):
                    yield self._looked_at(some)
        except FcosError as error:  # the portion itself cannot be read
            yield [{"image": portion.where, "error": str(error), "key": (portion.number, -1)}]

    def _set_aside(self, key: Key, picture: Picture) -> list[dict[str, Any]]:
        self.attempts.end([key])
        why = (
            f"{picture.where} is set aside: {MOST_DEATHS} processes died while they looked at it (too little memory, "
            "or a fault of a library that reads it)."
        )
        return [{"image": picture.where, "error": why, "key": key}]

    def _looked_at(self, some: Sequence[tuple[Key, Picture]]) -> list[dict[str, Any]]:
        keys, pictures = [key for key, _ in some], [picture for _, picture in some]
        self.attempts.begin(keys)
        with ThreadPoolExecutor(2) as pool:
            read = list(pool.map(self._read, pictures))
        found = iter(self._found([image for image in read if not isinstance(image, FcosError)]))
        rows = [
            {**self._row(picture, image, image if isinstance(image, FcosError) else next(found)), "key": key}
            for key, picture, image in zip(keys, pictures, read)
        ]
        self.attempts.end(keys)
        return rows

    def _read(self, picture: Picture) -> Any:
        """The image, or why there is none."""
        try:
            return picture.read(self.look)
        except Exception as error:  # whatever a picture does to its reader, millions of others wait
            return _told(error)

    def _found(self, images: Sequence[Any]) -> list[Any]:
        if not images:
            return []
        found = answers(lambda some: self.look.find(some, lambda done, all: None), images, Exception)
        return [_told(one) if isinstance(one, Exception) else one for one in found]

    def _row(self, picture: Picture, image: Any, found: Any) -> dict[str, Any]:
        if isinstance(found, FcosError):
            return {"image": picture.where, "error": str(found)}
        row = row_of(self.look, picture.where, image, found)
        if picture.drawn:
            save_picture(self.look.draw(image, found), Path(picture.drawn))
            row["picture"] = picture.drawn
        return row


def _told(error: Exception) -> FcosError:
    return error if isinstance(error, FcosError) else FcosError(f"{type(error).__name__}: {error}")
