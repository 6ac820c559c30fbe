"""Portions go out through Ray Data, rows come back in any order, and each is written down once."""

from __future__ import annotations

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from ...data.sources import Source
from ...errors import FcosError
from ...files import Taken
from ...visualize import free_name
from ..job import counted
from ..journal import Journal
from ..look import Look
from .portions import Portion, portions_of
from .worker import Attempts, Key, Worker

__all__ = ["Cluster", "ClusterJob"]

_PICTURES = 64  # of a portion of files
_PORTIONS = 4096  # that are handed out before the next are made: memory does not grow with the number of pictures
_TOLD = 20  # pictures that could not be used, of which a person hears while it goes on
_ROUNDS_WITHOUT = 3  # in which nothing came back before the rest is given up


@dataclass(frozen=True)
class Cluster:
    """Where workers run, and with what.

    Attributes:
        address: of a running Ray cluster ("auto", "ray://host:10001"); by default RAY_ADDRESS, else one is started on
            this machine and ended afterwards.
        workers: processes; by default one for each GPU, else as many as the CPUs give `cpus` to.
        cpus, gpus: of each worker; a share of a GPU is a number below 1.
    """

    address: str | None = None
    workers: int | None = None
    cpus: int = 1
    gpus: float | None = None

    @contextmanager
    def running(self) -> Iterator[tuple[int, float]]:
        """While this is open Ray is there; gives the number of workers, and the GPUs of each.

        Raises FcosError if Ray cannot be reached, or has not what is asked for.
        """
        for name, value in (("RAY_USAGE_STATS_ENABLED", "0"), ("RAY_BACKEND_LOG_LEVEL", "fatal")):
            os.environ.setdefault(name, value)  # nothing is told to anybody, and no table of Ray's to the user
        import ray

        started = not ray.is_initialized()
        if started:
            try:
                ray.init(self.address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
            except (ConnectionError, RuntimeError, ValueError) as error:
                said = str(error).splitlines()[0]
                raise FcosError(f"The Ray cluster {self.address or ''} cannot be used: {said}") from error
        try:
            there = ray.cluster_resources()
            gpus = (1.0 if there.get("GPU", 0) >= 1 else 0.0) if self.gpus is None else self.gpus
            most = int(there.get("GPU", 0) // gpus) if gpus else int(there.get("CPU", 0) // self.cpus)
            if most < (self.workers or 1):
                each = f"{gpus:g} GPUs" if gpus else f"{self.cpus} CPUs"
                raise FcosError(
                    f"The Ray cluster has {there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs, which is too "
                    f"little for {self.workers or 1} workers with {each} each: ask for fewer."
                )
            yield self.workers or most, gpus
        finally:
            if started:
                ray.shutdown()


@dataclass
class ClusterJob:
    """Looks at pictures by many processes; what is done is in the journal, whatever happens next.

    The rows of the journal are those of a `DetectionJob`, in the order in which they come back.

    Attributes:
        look: makes in each worker how its detector looks at an image; sent there by pickle.
        pictures: folder of what is drawn; None for none.
        tell: how many pictures are done.
        before, finished: pictures that the journal had, and that were looked at in this run.
        counts, empty: objects of each class in them, and how many have none.
        failed: how many could not be used; their rows are in `aside`, as JSON Lines.
    """

    look: Callable[[], Look]
    journal: Journal
    cluster: Cluster
    pictures: Path | None = None
    tell: Callable[[int, str, float | None], None] = lambda done, note, left: None
    complain: Callable[[str], None] = lambda text: None
    before: int = 0
    finished: int = 0
    failed: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    empty: int = 0
    seconds: float = 0.0
    _left_out: Counter[str] = field(default_factory=Counter)

    @property
    def done(self) -> int:
        """Pictures that were looked at, earlier and in this run."""
        return self.before + self.finished

    @property
    def aside(self) -> Path:
        return self.journal.path.with_name(f"{self.journal.stem}.failed.jsonl")

    def run(self, sources: Sequence[Source]) -> None:
        """Look at all sources but those that the journal has already.

        Raises:
            KeyboardInterrupt: the user asked to end; what is done is kept.
            FcosError: a source cannot be divided, the cluster cannot be used, or results cannot be written.
        """
        draw = self._drawn(sources) if self.pictures else None
        vain = 0
        self.before = self.journal.done.total()
        self.tell(self.before, "", None)
        self.aside.unlink(missing_ok=True)  # of a run that this one goes on with: it looks at them again
        with self.cluster.running() as (workers, gpus), self._timed():
            while some := list(islice(self._left(sources, draw), _PORTIONS)):
                there = self.finished + self.failed
                self._round(some, workers, gpus)
                vain = vain + 1 if self.finished + self.failed == there else 0
                if vain == _ROUNDS_WITHOUT:
                    raise FcosError(f"The workers bring nothing back of {some[0].where}; --resume tries again.")

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """Seconds of looking, Ray's own start left out."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.seconds = time.monotonic() - begun

    def _left(self, sources: Sequence[Source], draw: Callable[[Source], str] | None) -> Iterator[Portion]:
        return portions_of(sources, self.journal.done + self._left_out, _PICTURES, draw)

    def _drawn(self, sources: Sequence[Source]) -> Callable[[Source], str]:
        assert self.pictures is not None
        folder, names = self.pictures, dict[str, str]()
        taken = Taken([*(source.where for source in sources if not source.is_address), *self.journal.pictures])

        def name(source: Source) -> str:
            if source.where not in names:
                path = free_name(folder, source.stem, taken)
                taken.add(path)
                names[source.where] = str(path)
            return names[source.where]

        return name

    def _round(self, portions: Sequence[Portion], workers: int, gpus: float) -> None:
        import ray
        from ray.exceptions import RayError

        attempts = ray.remote(num_cpus=0)(Attempts).remote()
        quiet = ray.data.DataContext.get_current()
        quiet.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        given = ray.data.from_items([{"portion": one} for one in portions], override_num_blocks=len(portions))
        rows = given.map_batches(
            Worker, fn_constructor_args=(self.look, _Elsewhere(attempts), self.cluster.cpus), batch_size=1,
            concurrency=min(workers, len(portions)), num_cpus=self.cluster.cpus, num_gpus=gpus,
        )  # fmt: skip
        by_number, seen = {one.number: one for one in portions}, set[Key]()
        try:
            for batch in rows.iter_batches(batch_size=None):
                for text in batch["row"]:
                    row = json.loads(text)
                    if (key := tuple(row.pop("key"))) not in seen:
                        seen.add(key)
                        self._take(row, by_number[key[0]].names() if key[1] < 0 else [row["image"]])
        except RayError as error:
            raise FcosError(f"The workers cannot go on: {_cause(error)}") from error

    def _take(self, row: Mapping[str, Any], names: Sequence[str]) -> None:
        """Write down what came back of some pictures: of one, or what is wrong with a whole portion."""
        if "error" in row:
            if self.failed < _TOLD:
                self.complain(f"error: {row['error']}")
            self._left_out.update(names)
            self.failed += len(names)
            self._set_aside(row)
        else:
            self.journal.add(row)
            self.journal.done[row["image"]] += 1
            self.finished += 1
            found = counted(row)
            self.counts += found
            self.empty += not found
        self.tell(self.done + self.failed, "", None)

    def _set_aside(self, row: Mapping[str, Any]) -> None:
        try:
            with self.aside.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        except OSError as error:
            raise FcosError(f"{self.aside} cannot be written: {error.strerror}.") from error


class _Elsewhere:
    """`Attempts` of another process."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def begun(self, keys: Sequence[Key]) -> list[int]:
        return self._ask("begun", keys)

    def begin(self, keys: Sequence[Key]) -> None:
        self._ask("begin", keys)

    def end(self, keys: Sequence[Key]) -> None:
        self._ask("end", keys)

    def _ask(self, method: str, keys: Sequence[Key]) -> Any:
        import ray

        return ray.get(getattr(self._actor, method).remote(keys))


def _cause(error: BaseException) -> str:
    """The last sentence of what a worker said."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
