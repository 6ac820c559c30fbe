"""The folder of a training, a demo or an evaluation: whose it is, and how a new one takes the place of an old one.

A folder tells by a marker (`.fcos_d2.json`) what it holds. Files that are not of that kind are the user's and stay.
A training that replaces another is written into a folder of its own beside it; when it is complete, its files are
renamed into the target, and what is left of the old training is removed. Until then the old one is whole, whatever
happens; from then on the new one is, and whoever opens the folder next finishes the exchange.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FcosError
from ..files import require_writable, temporary_folder, write_json

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["ANALYSIS", "DEMO", "DEMO_IMAGES", "EVALUATION", "FIGURE", "TRAINING", "Kind", "Workspace", "default_folder"]

_MARKER = ".fcos_d2.json"


@dataclass(frozen=True)
class Kind:
    """What a folder can hold."""

    name: str
    command: str  # that makes it
    files: tuple[str, ...]  # patterns of what it writes
    resumable: bool = False  # whether an interrupted one is worth keeping once it has a checkpoint
    alone: bool = False  # whether it wants a folder without anything else


_TRAINED = (
    "model_final.pth", "model_best.pth", f"model_{'[0-9]' * 7}.pth", "last_checkpoint", "metrics.json", "config.yaml",
    "evaluation.json", "log.txt", "curves.png", "detections.png", "thresholds.json", "thresholds.png", "confusion.png",
    "confusion.json", "misses.jpg", "hits.jpg", "loggers.json", "events.out.tfevents.*", ".*.[0-9]*.part",
)  # fmt: skip
TRAINING = Kind("training", "fcos train", (*_TRAINED, "summary.json", "recipe.json"), resumable=True)
DEMO = Kind("demo", "fcos demo", (*_TRAINED, "training.jsonl"), alone=True)
# The data set of a demo, which another demo with the same settings uses as it is.
DEMO_IMAGES = (
    "data/synthetic.json", "data/train.json", "data/val.json",
    *(f"data/images/{part}_{'[0-9]' * 6}.jpg" for part in ("train", "val")),
)  # fmt: skip
EVALUATION = Kind("evaluation", "fcos eval", (
    "summary.json", "evaluation.json", "config.yaml", "log.txt", "thresholds.json", "thresholds.png", "errors.json",
    "errors.jpg", "recall.png",
))  # fmt: skip
ANALYSIS = Kind("analysis", "fcos analyze", ("analysis.json", "suggested.py", "unlearnable-*.jpg"))
FIGURE = Kind(
    "figure", "fcos paper", tuple(f"{name}[0-9]-*.{kind}" for name in ("figure", "table") for kind in ("svg", "jpg"))
)


@dataclass
class Workspace:
    """Where a command writes."""

    target: Path  # where the results lie in the end, as the user named it
    folder: Path  # where they are written; another one than `target` while they are to replace earlier ones
    kind: Kind
    extra: tuple[str, ...] = ()  # patterns of more files that belong to the results

    @classmethod
    def open(
        cls, target: Path, kind: Kind, *, overwrite: bool = False, resume: bool = False, inputs: Sequence[Path] = ()
    ) -> Workspace:
        """Decide where to write; nothing but an exchange that was cut off is changed on disk.

        Args:
            overwrite: replace what is there, if it is of the same kind.
            resume: go on where an interrupted one stopped.
            inputs: files and folders that will be read.
        Raises:
            FcosError: the folder holds something else, or what the user did not ask to replace, or is what is read.
        """
        target = target.expanduser()
        require_writable(target)
        if not resume and any(target.resolve() == path.expanduser().resolve() for path in inputs):
            raise FcosError(f"{target} is the folder of the data set, which is only read: choose another --output.")
        fresh = _folder_beside(target)
        # Of the processes that torchrun has started, the first.
        if os.environ.get("RANK", "0") == "0" or not {"WORLD_SIZE", "LOCAL_RANK"} <= os.environ.keys():
            with _alone(fresh):
                _recover(fresh, target)
        left = _marker(fresh)
        pending = "replaces" in left and left.get("holds") == kind.name
        _refuse_strangers(target, kind)
        for path in inputs if pending and overwrite and not resume else ():
            if fresh.resolve() in path.expanduser().resolve().parents:
                raise FcosError(
                    f"{path} belongs to the interrupted training in {fresh}, which --overwrite replaces: copy it "
                    "elsewhere first, or go on with --resume."
                )
        there = _matching(target, kind.files)
        if resume:
            return cls(target, fresh if pending else target, kind)
        if not overwrite and kind is TRAINING and (pending or "last_checkpoint" in there):
            held = f"{target} holds an earlier training" if there else f"{fresh} holds an interrupted training"
            held += f", and {fresh} an interrupted one that was to replace it" if there and pending else ""
            raise FcosError(f"{held}: go on with --resume, replace it with --overwrite, or choose another --output.")
        if overwrite and (there or pending):
            for place, is_ours in ((fresh, pending), (_displaced(fresh), "replaces" in _marker(_displaced(fresh)))):
                if place.exists() and not is_ours:
                    raise FcosError(f"{place} is needed for the new {kind.name}, but holds something else: move it.")
            return cls(target, fresh, kind)
        return cls(target, target, kind)

    @property
    def replaces(self) -> bool:
        """Whether results are there that stay until the new ones are complete."""
        return self.folder != self.target

    @property
    def is_complete(self) -> bool:
        """Whether new results are complete and on their way to where the earlier ones are."""
        return "complete" in _marker(self.folder)

    @property
    def can_go_on(self) -> bool:
        """Whether the folder has a checkpoint to go on from."""
        return self.kind.resumable and (self.folder / "last_checkpoint").is_file()

    @contextmanager
    def writing(self, resume: bool = False) -> Iterator[Path]:
        """Prepare the folder, and put what was written in its place when the block ends well; in one process only.

        Raises:
            FcosError: the folder cannot be written, another process writes there, or the exchange fails.
        """
        note: dict[str, Any] = {"holds": self.kind.name}
        with _alone(_folder_beside(self.target)):
            if not self.replaces:
                _write_marker(self.folder, note)
                yield self.folder
                return
            if not resume and self.folder.exists():
                self.folder.rename(_displaced(self.folder))
            note["replaces"] = str(self.target.resolve())
            try:
                _write_marker(self.folder, note)
                yield self.folder
            except BaseException:
                if not self.can_go_on and not resume:
                    shutil.rmtree(self.folder, ignore_errors=True)
                _recover(self.folder, self.target)
                raise
            files = sorted(_matching(self.folder, ("**/*",)) - {_MARKER})
            _write_marker(self.folder, {**note, "complete": files, "patterns": [*self.kind.files, *self.extra]})
            _exchange(self.folder, self.target)
            if "replaces" in _marker(_displaced(self.folder)):
                shutil.rmtree(_displaced(self.folder), ignore_errors=True)

    def remove(self, patterns: Sequence[str]) -> None:
        for name in _matching(self.folder, patterns):
            (self.folder / name).unlink()


def default_folder(data: Path | None, model: str | None) -> Path:
    """Where a training is written if nobody says it: beside others, by the name of its data or of its config."""
    if data is None:
        return Path("output", Path(str(model)).stem)
    there = data.resolve()
    if there.is_file():  # an archive, or the description of a data set
        return Path("output", there.stem if there.suffix.lower() == ".zip" else there.parent.name)
    return Path("output", there.name)


@contextmanager
def _alone(fresh: Path) -> Iterator[None]:
    """Raises FcosError if another process of this machine writes for the same target; a killed one holds no lock."""
    name = hashlib.sha256(os.fsencode(fresh.resolve())).hexdigest()[:16]
    (locks := temporary_folder()).mkdir(parents=True, exist_ok=True)
    with open(locks / f"{name}.lock", "wb") as file:
        if fcntl is not None:
            busy = f"Another process writes to {fresh} or beside it: wait for it, or choose another --output."
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FcosError(busy) from None
        yield


def _folder_beside(target: Path) -> Path:
    """Where a new training is written: `<target>.new`, or `.new` inside if nothing can be renamed from there."""
    real = target.resolve()
    inside = target / ".new"
    if inside.is_dir() or not real.name:
        return inside
    named = real if target.is_symlink() or target.name in ("", "..") else target
    beside = named.with_name(f"{named.name}.new")
    if beside.is_dir() or not target.exists():
        return beside
    same = real.stat().st_dev == real.parent.stat().st_dev
    return beside if same and os.access(real.parent, os.W_OK) else inside


def _displaced(fresh: Path) -> Path:
    """Where an interrupted training goes while another one takes its folder."""
    return fresh.with_name(f"{fresh.name}.old")


def _marker(folder: Path, name: str = _MARKER) -> dict[str, Any]:
    """What the marker of a folder, or another JSON file in it, says; nothing if there is none."""
    try:
        found = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_marker(folder: Path, note: dict[str, Any]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FcosError(f"The output folder {folder} cannot be written: {error.strerror or error}.") from error
    write_json(folder / _MARKER, note)


def _matching(folder: Path, patterns: Sequence[str]) -> set[str]:
    """Names below `folder` of the files that match."""
    return {str(path.relative_to(folder)) for pattern in patterns for path in folder.glob(pattern) if path.is_file()}


def _holds(folder: Path) -> Kind | None:
    """What is in a folder; for one without a marker, what its files say."""
    kinds = {kind.name: kind for kind in (DEMO, TRAINING, EVALUATION, ANALYSIS, FIGURE)}
    kind = kinds.get(str(_marker(folder).get("holds")))
    if kind is None:
        alone = (folder / "training.jsonl").is_file() or _names(folder) - _matching(folder, DEMO.files) == {"data"}
        if alone and (folder / "data" / "synthetic.json").is_file():
            kind = DEMO
        elif (folder / "last_checkpoint").is_file():
            kind = TRAINING
        elif {"dataset", "weights", "AP50"} <= _marker(folder, "summary.json").keys():
            kind = EVALUATION
    return kind if kind is not None and _matching(folder, kind.files) else None


def _names(folder: Path) -> set[str]:
    """What lies in a folder, hidden files left out."""
    return {path.name for path in folder.glob("[!.]*")}


def _refuse_strangers(target: Path, kind: Kind) -> None:
    """Raise FcosError if the folder holds what `kind` neither wrote nor may stand beside."""
    held = _holds(target)
    if held is not None and held is not kind:
        raise FcosError(f"{target} holds a {held.name}, which `{kind.command}` leaves alone: choose another --output.")
    if held is not None or _marker(target).get("holds") == kind.name:
        return
    if found := sorted(_names(target) if kind.alone else _matching(target, kind.files)):
        listed = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
        raise FcosError(f"{target} holds {listed}, which `{kind.command}` did not write: choose another --output.")


def _recover(fresh: Path, target: Path) -> None:
    """Bring into order what a killed process left: finish an exchange, or put an interrupted training back."""
    note = _marker(fresh)
    held = _holds(target)
    if "complete" in note and (held.name == note["holds"] if held else not _matching(target, note["patterns"])):
        _exchange(fresh, target)
    displaced = _displaced(fresh)
    if "replaces" not in _marker(displaced):
        return
    if (fresh / "last_checkpoint").is_file():
        shutil.rmtree(displaced, ignore_errors=True)
    else:
        shutil.rmtree(fresh, ignore_errors=True)
        displaced.rename(fresh)


def _exchange(fresh: Path, target: Path) -> None:
    """Rename the files of a complete training into the target, and remove what is left of the old one there."""
    note = _marker(fresh)
    own = _matching(target, note["patterns"])
    try:
        for name in note["complete"]:
            source, destination = fresh / name, target / name
            if not source.is_file():
                continue
            if name == "log.txt":  # which names the folder that it was written in
                source.write_text(source.read_text(encoding="utf-8").replace(str(fresh), str(target)), encoding="utf-8")
            if destination.exists() and name not in own:  # the user's
                destination = destination.with_name(f"{destination.name}.new")
            destination.parent.mkdir(parents=True, exist_ok=True)
            os.replace(source, destination)
        for name in _matching(target, note["patterns"]) - set(note["complete"]):
            (target / name).unlink()
        write_json(target / _MARKER, {"holds": note["holds"]})
        shutil.rmtree(fresh)
    except (OSError, FcosError) as error:
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        how = " with --resume" if note["holds"] == TRAINING.name else ""  # others have no such option
        raise FcosError(
            f"The new {note['holds']} is complete, but cannot be moved from {fresh} to {target}: {reason}; running the "
            f"command again{how} finishes that."
        ) from error
