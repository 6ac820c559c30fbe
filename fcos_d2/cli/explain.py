"""`fcos explain`: where detections come from, what they suppressed, and why objects were missed."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import zoo
from ..errors import FcosError
from . import options as shared
from . import thresholds
from .causes import view_of_explanation, view_of_explanations
from .checks import check
from .session import Result, Session, fcos_command

if TYPE_CHECKING:
    import numpy as np

    from ..data.sources import Source
    from ..evaluation.ledger import Seen
    from ..predict.predictor import Predictor
    from ..predict.replay import Replay
    from ..train.marked import Marked

_RECORD = ".npz"


def _image(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not value:
        raise click.BadParameter("name an image, or a record of --record.")
    return value


@fcos_command("explain")
@click.argument("image", metavar="IMAGE|RECORD", callback=_image)
@shared.weights()
@shared.model()
@shared.offline
@shared.force_recipe
@thresholds.threshold
@shared.data
@shared.data_format
@click.option(
    "--iou", type=click.FloatRange(0, 1, min_open=True), default=0.5, show_default=True,
    help="With --data: overlap from which on a detection finds an object.",
)  # fmt: skip
@shared.path("--record", help="Write what the detections follow from, so that `fcos explain RECORD` replays them.")
@shared.output(Path("output", "explained"), "Folder for the picture.")
@click.option("--pictures/--no-pictures", "picture", default=True, help="Whether to write a picture.")
@shared.device
@shared.max_pixels
def command(
    session: Session, image: str, weights: str | None, model: str | None, data: Path | None, format: str | None,
    device: str | None, record: Path | None, output: Path, picture: bool, **options: Any,
) -> Result:  # fmt: skip
    """Explain what a detector found in an image, and what it did not.

    \b
    fcos explain photo.jpg --weights FILE                  where each detection comes from
    fcos explain my_data/images/7.jpg --data my_data ...   and why it missed what is marked there
    fcos explain photo.jpg --weights FILE --record 7.npz   and keep it
    fcos explain 7.npz                                     replay it, without the weights
    fcos explain photos --weights FILE                     each image of a folder

    Each detection has its level (stride), the location that predicted it, the class score and the quality that its
    score is made of, its rank among the candidates of its level, and the boxes that it suppressed (all of them with
    --json). With --data, each missed object and each false alarm has one cause. IMAGE is a file, an address, a folder,
    a pattern, a .txt file with a path in each line, or with --data the name of an image in it.
    """
    if image.lower().endswith(_RECORD):
        if weights or model or data or record or options["threshold"] is not None:
            raise click.UsageError("A record is complete: no --weights, --model, --threshold, --data or --record.")
        return _replayed(session, Path(image))
    if weights is None and model is None:
        model = zoo.DEFAULT
    check(weights=weights, model=model, device=device, data=data, format=format, detects=True)
    from ..files import require_writable

    sources = _sources(image, data)
    if record is not None and len(sources) > 1:
        raise click.UsageError(f"--record keeps one image, and {image} is {len(sources)} of them: name one.")
    if picture:
        require_writable(output)
    session.start(device)
    from ..predict.predictor import Predictor
    from ..predict.replay import require_own
    from ..train.marked import Marked

    if record is not None:
        require_own(record.expanduser())
    marked = Marked.of(data, format) if data is not None else None
    if len(sources) == 1 and marked is not None:
        marked.image(sources[0].where)  # before the weights are read
    predictor = Predictor(
        model or str(weights), weights=weights, device=device, score_threshold=options["threshold"], otherwise=0.5,
        allow_py=not session.no_py, force_recipe=options["force_recipe"], tta=False,
    )  # fmt: skip
    told = _Teller(predictor, marked, options["iou"], output.expanduser() if picture else None, record)
    return _one(told, sources[0]) if len(sources) == 1 else _each(session, told, sources)


def _sources(image: str, data: Path | None) -> list[Source]:
    """The images that are meant: what is wrong is told before PyTorch is imported."""
    from ..data.sources import Source, expand, require_any

    there = "://" in image or bool(glob.glob(os.path.expanduser(image), recursive=True)) or Path(image).exists()
    sources = expand([image]) if there or data is None else [Source(image)]  # a name in the data
    if data is None:
        require_any(sources)
    images = [source for source in sources if not source.is_video]
    if not images:
        what = f"{image} has no image, only videos" if Path(image).is_dir() else f"{image} is no image"
        raise FcosError(f"{what}: `fcos explain` looks at images, `fcos detect` at videos and cameras, too.")
    return images


@dataclass
class _Teller:
    """Explains one image after the other.

    Attributes:
        marked: what is known of the images; `None` without --data.
        iou: that a detection needs to find an object.
        pictures: folder for them; `None` for no pictures.
        record: file that an image is recorded in.
    """

    predictor: Predictor
    marked: Marked | None
    iou: float
    pictures: Path | None
    record: Path | None
    written: list[Path] = field(default_factory=list)  # pictures

    def __call__(self, source: Source) -> dict[str, Any]:
        """What is told of an image; what was asked for is written.

        Raises:
            FcosError: the image cannot be read, or is not in the data.
        """
        from ..predict.replay import write_record

        pixels, replay, account = self._look(source)
        found = _told(replay, account)
        files: dict[str, Any] = {"record": None, "picture": None}
        if self.record is not None:
            write_record(self.record.expanduser(), replay)
            files["record"] = self.record
        if self.pictures is not None:
            files["picture"] = _drawn(self.pictures, self.written, pixels, found, replay)
            self.written.append(files["picture"])
        height, width = pixels.shape[:2]
        return {"image": replay.image, "width": width, "height": height, **found, **files}

    def _look(self, source: Source) -> tuple[np.ndarray, Replay, Seen | None]:
        """The pixels of an image, what the detector saw there, and the account of it if something is marked."""
        from ..data.sources import Source, read
        from ..evaluation.tally import Sight
        from ..modeling.record import recording, require_followed
        from ..predict.replay import Replay

        names, there = tuple(self.predictor.class_names), None
        if self.marked is not None:
            there = self.marked.numbered(self.marked.image(source.where), names)
            source = Source(there["file_name"])
        pixels = read(source, 1 << 26, 20.0)
        require_followed(self.predictor.model)
        with recording(self.predictor.model) as records:
            self.predictor(pixels, "RGB")
        replay = Replay(records[0], names, self.predictor.least, source.where)
        if there is None:
            return pixels, replay, None
        dense: Any = self.predictor.model.dense
        sight = Sight.of(records[0], 0, dense.assigner, there, self.iou)
        return pixels, replay, sight.account(replay.least, names, self.iou)


def _one(told: _Teller, source: Source) -> Result:
    result = told(source)
    return Result(result, view_of_explanation(result, [x for x in (result["record"], result["picture"]) if x]))


def _each(session: Session, told: _Teller, sources: Sequence[Source]) -> Result:
    """Of several images; what cannot be explained is named and left out, and the exit code is 1."""
    results, failed = [], {}
    with session.progress("explaining", len(sources)) as progress:
        for done, source in enumerate(sources, 1):
            try:
                results.append(told(source))
            except FcosError as error:
                session.say(str(error))
                failed[source.where] = str(error)
            progress.update(done)
    return Result({"images": results, "failed": failed}, view_of_explanations(results), int(bool(failed)))


def _replayed(session: Session, path: Path) -> Result:
    """What a record says, and whether the selection gives the same boxes again."""
    session.start()
    from ..predict.replay import read_record

    replay = read_record(path.expanduser())
    found = {"image": replay.image, **_told(replay, None), "record": path, "picture": None}
    return Result(found, view_of_explanation(found, []), exit_code=int(found["replay"] == "different"))


def _told(replay: Replay, account: Seen | None) -> dict[str, Any]:
    """The explanation, and whether the record replays."""
    from ..evaluation.evidence import Evidence
    from ..evaluation.explanation import explanation

    least = dict(zip(replay.class_names, replay.least))
    told = explanation(Evidence.of(replay.record, 0).reporting(replay.least), replay.class_names, account)
    return {
        **told, "threshold": thresholds.single(least), "thresholds": least, "replay": replay.outcome,
        "classes": list(replay.class_names),
    }  # fmt: skip


def _drawn(
    folder: Path, taken: Sequence[Path], pixels: np.ndarray, found: dict[str, Any], replay: Replay
) -> Path:  # fmt: skip
    from ..data.sources import Source
    from ..evaluation.explanation import RIGHT
    from ..visualize import free_name, save_picture
    from ..visualize.explanation import Absent, Mark, draw_explanation

    names = replay.class_names
    marks = [
        Mark(
            row["box"], names.index(row["class"]), row["score"], row["location"],
            [other["box"] for other in row["suppressed"]],
            "" if row.get("verdict", RIGHT) == RIGHT else f"({row['verdict']})",
        ) for row in found["detections"]
    ]  # fmt: skip
    absent = [Absent(row["box"], names.index(row["class"]), row["cause"]) for row in found.get("missed", ())]
    path = free_name(folder, Source(replay.image).stem, taken)
    return save_picture(draw_explanation(pixels, marks, absent, names), path)
