"""Detection in everything that somebody points at: each source is read, looked at, drawn and written down in turn."""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.sources import Source, kind_of
from ..errors import FcosError
from ..files import Taken
from ..visualize import free_name, save_picture
from .journal import Journal
from .track import Tracks

if TYPE_CHECKING:  # videos need OpenCV, which is imported for them alone
    from ..data.video import Frame, Video
    from ..visualize.film import Film
    from .look import Look

__all__ = ["DetectionJob", "Interrupted", "Seen", "counted", "row_of"]

_READERS = 2  # threads that read images while the detector is at work


class Interrupted(KeyboardInterrupt):
    """The user asked to end, by Ctrl-C, a signal or in a window; `code` is the exit code that this asks for."""

    def __init__(self, code: int = 130) -> None:
        super().__init__("Interrupted.")
        self.code = code


@dataclass
class Seen:
    """What a person is told of one image or video."""

    where: str
    counts: Counter[str]
    frames: int | None = None  # of a video
    picture: Path | None = None
    tracks: int | None = None  # objects that were followed


def row_of(look: Look, where: str, image: Any, found: Any, frame: Frame | None = None) -> dict[str, Any]:
    """What a journal says of one image, or of one frame of a video, that was looked at."""
    width, height = look.size(image)
    of_video = {} if frame is None else {"frame": frame.index, "time": round(frame.seconds, 6)}
    return {
        "image": where, **of_video, "width": width, "height": height, "detections": look.describe(found),
    }  # fmt: skip


@dataclass
class DetectionJob:
    """Looks at sources, one after the other; what is done is in the journal, whatever happens next.

    Attributes:
        seen, failed: what was looked at in this run, and what could not be.
        finished: how many sources are done, those of earlier runs included.
    """

    look: Look
    journal: Journal
    threshold: float
    pictures: Path | None = None  # folder of what is drawn; None for none
    every: int = 1  # look at each so manieth frame of videos
    track: bool = False
    timeout: float = 20.0
    show: Callable[[np.ndarray], bool] | None = None  # a window; False ends the job
    # Sources that are done, what is going on, and the seconds that are left where that is known.
    tell: Callable[[int, str, float | None], None] = lambda done, note, left: None
    complain: Callable[[str], None] = lambda text: None
    seen: list[Seen] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
    stopped: bool = False  # a live source was ended by the user, which is how it ends
    finished: int = 0
    _taken: Taken = field(default_factory=Taken)
    _begun: float = 0.0
    _alone: bool = False

    def run(self, sources: Sequence[Source]) -> None:
        """Look at all sources but those that the journal has already.

        Raises:
            KeyboardInterrupt: the user asked to end; what is done is kept.
            FcosError: results cannot be written.
        """
        if self.pictures:
            self._taken = Taken([*(s.where for s in sources if not s.is_address), *self.journal.pictures])
        todo = self._left(sources)
        self.finished = len(sources) - len(todo)
        self.tell(self.finished, "", None)
        self._begun, self._alone = time.monotonic(), len(todo) == 1
        pool = ThreadPoolExecutor(_READERS)
        waiting: deque[tuple[Source, Future[Any]]] = deque()
        window = 1 if self.look.batch == 1 else 4 * self.look.batch
        try:
            for source in todo:
                if self.stopped:
                    break
                if (kind := self._kind(source)) is None:
                    continue
                if kind == "image":
                    waiting.append((source, pool.submit(self.look.read, source)))
                    if len(waiting) > window:  # one more, so that there is something to read meanwhile
                        self._images([waiting.popleft() for _ in range(window)])
                    continue
                self._images(list(waiting))
                waiting.clear()
                self._video(source, live=kind == "live")
            while waiting and not self.stopped:
                self._images([waiting.popleft() for _ in range(min(window, len(waiting)))])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _left(self, sources: Sequence[Source]) -> list[Source]:
        """Sources without those that are done, and without what an earlier part of this run has drawn."""
        done, drawn = Counter(self.journal.done), {os.path.realpath(path) for path in self.journal.pictures}
        left = []
        for source in sources:
            if done[source.where]:
                done[source.where] -= 1
            elif source.is_address or not drawn or os.path.realpath(source.where) not in drawn:
                left.append(source)
        return left

    def _kind(self, source: Source) -> str | None:
        try:
            return kind_of(source, self.timeout)
        except FcosError as error:
            self._fail(source, error)
            return None

    def _fail(self, source: Source, error: FcosError) -> None:
        self.failed.append({"image": source.where, "error": str(error)})
        self.complain(f"error: {error}")
        self._done()

    def _done(self) -> None:
        self.finished += 1
        self.tell(self.finished, "", None)

    def _tell_part(self, note: str, done: int, all: int | None) -> None:
        """Say how far a source is that takes long; where it is the only one, also when it will be done."""
        left = None
        if self._alone and all and done:
            left = (time.monotonic() - self._begun) / done * max(all - done, 0)
        self.tell(self.finished, note, left)

    # Images

    def _images(self, waiting: Sequence[tuple[Source, Future[Any]]]) -> None:
        read: list[tuple[Source, Any]] = []
        for source, future in waiting:
            try:
                read.append((source, future.result()))
            except FcosError as error:
                read.append((source, error))
        images = [image for _, image in read if not isinstance(image, FcosError)]
        results = iter(self.look.find(images, self._tiles) if images else [])
        for source, image in read:
            found = image if isinstance(image, FcosError) else next(results)
            if isinstance(found, FcosError):
                self._fail(source, found)
            else:
                self._image(source, image, found)

    def _image(self, source: Source, image: Any, found: Any) -> None:
        row = row_of(self.look, source.where, image, found)
        picture = self.look.draw(image, found) if self.pictures or self.show else None
        if self.pictures and picture is not None:
            row["picture"] = path = free_name(self.pictures, source.stem, self._taken)
            self._taken.add(path)
            save_picture(picture, path)
        self.journal.add(row)
        self.seen.append(Seen(source.where, counted(row), picture=row.get("picture")))
        self._done()
        self._shown(picture)

    def _tiles(self, done: int, all: int) -> None:
        self._tell_part(f"tile {done} of {all}", done, all)

    def _shown(self, picture: np.ndarray | None) -> None:
        if self.show and picture is not None and not self.show(picture):
            raise Interrupted

    # Videos

    def _video(self, source: Source, live: bool) -> None:
        from ..data.video import Video

        seen = Seen(source.where, Counter(), frames=0)
        film = None
        complete = False
        try:
            with Video(source, live, self.every, self.timeout) as video:
                drawn = _Drawn(self, source, video)
                try:
                    for batch in _batches(video, 1 if live else self.look.batch):
                        for frame, image, found in self._found(batch, drawn.tracks):
                            row = row_of(self.look, source.where, image, found, frame)
                            drawn.add(frame, image, found)
                            self.journal.add(row)
                            seen.frames = (seen.frames or 0) + 1
                            seen.counts |= counted(row)  # the most in one frame
                        self._tell_part(_where(video), video.read, video.count)
                    complete = True
                except KeyboardInterrupt:
                    if not live:
                        raise
                    self.stopped = complete = True
                finally:
                    film = drawn.close()
                    seen.picture, seen.tracks = film, drawn.followed
                    if seen.frames:
                        self.journal.add(_summary(source, video, seen, complete))
                        self.seen.append(seen)
            if not seen.frames:
                raise FcosError(f"The video {source.where} has no frame that can be read.")
        except FcosError as error:
            self._fail(source, error)
        else:
            if video.count and video.read < video.count:
                self.complain(f"warning: {source.where}: {video.read} of {video.count} frames could be read.")
            self._done()

    def _found(self, frames: Sequence[Frame], tracks: Tracks | None) -> Iterator[tuple[Frame, Any, Any]]:
        images = [self.look.frame(frame.pixels) for frame in frames]
        for frame, image, found in zip(frames, images, self.look.find(images, lambda done, all: None)):
            if isinstance(found, FcosError):
                raise found
            yield frame, image, tracks(found) if tracks else found


class _Drawn:
    """What is made of the frames of one video: tracks, a film, a window."""

    def __init__(self, job: DetectionJob, source: Source, video: Video) -> None:
        self.job, self.source, self.video = job, source, video
        self.rate = video.rate / job.every
        self.tracks = Tracks(self.rate, job.threshold) if job.track else None
        self.film: Film | None = None
        self._ids: set[int] = set()

    @property
    def followed(self) -> int | None:
        """Objects that had a number."""
        return len(self._ids) if self.tracks else None

    def add(self, frame: Frame, image: Any, found: Any) -> None:
        job = self.job
        if self.tracks:
            self._ids |= {number for number in found.track_ids if number is not None}
        if not job.pictures and not job.show:
            return
        picture = job.look.draw(image, found)
        if job.pictures:
            if self.film is None:
                from ..visualize.film import Film

                size = (picture.shape[1], picture.shape[0])
                begun = job.journal.begun.get(self.source.where)
                self.film = Film(job.pictures, self.source.stem, self.rate, size, job._taken, begun)
            # A live source gives as many frames as the detector can look at; the film shall not run faster for that.
            times = round(frame.seconds * self.rate) - self.film.count + 1 if self.video.live else 1
            self.film.add(picture, max(times, 1))
        job._shown(picture)

    def close(self) -> Path | None:
        path = self.film.close() if self.film else None
        if path:
            self.job._taken.add(path)
        return path


def _batches(video: Video, size: int) -> Iterator[list[Frame]]:
    frames = iter(video)
    while batch := list(islice(frames, size)):
        yield batch


def _where(video: Video) -> str:
    return f"{video.name}: frame {video.read}" + (f" of {video.count}" if video.count else "")


def _summary(source: Source, video: Video, seen: Seen, complete: bool) -> dict[str, Any]:
    """The row of a video, after those of its frames."""
    row: dict[str, Any] = {"video": source.where, "frames": seen.frames, "rate": round(video.rate, 3)}
    if complete and video.count and video.read < video.count:
        row["unreadable"] = video.count - video.read
    if seen.tracks is not None:
        row["tracks"] = seen.tracks
    if seen.picture:
        row["picture"] = seen.picture
    return {**row, "complete": complete}


def counted(row: Mapping[str, Any]) -> Counter[str]:
    """How many objects of each class a row has."""
    return Counter(found["class"] for found in row["detections"])
