"""`fcos explain`: where detections come from, what they suppressed, and why objects were missed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import zoo
from ..errors import FcosError
from . import options as shared
from . import thresholds
from .causes import view_of_explanation
from .checks import check
from .session import Result, Session, fcos_command

if TYPE_CHECKING:
    import numpy as np

    from ..evaluation.ledger import Seen
    from ..predict.replay import Replay

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
    """Explain what a detector found in one image, and what it did not.

    \b
    fcos explain photo.jpg --weights FILE                  where each detection comes from
    fcos explain my_data/images/7.jpg --data my_data ...   and why it missed what is marked there
    fcos explain photo.jpg --weights FILE --record 7.npz   and keep it
    fcos explain 7.npz                                     replay it, without the weights

    Each detection has its level (stride), the location that predicted it, the class score and the quality that its
    score is made of, its rank among the candidates of its level, and the boxes that it suppressed (all of them with
    --json). With --data, each missed object and each false alarm has one cause. IMAGE is a file, an address, or with
    --data the name of an image in it.
    """
    if image.lower().endswith(_RECORD):
        if weights or model or data or record or options["threshold"] is not None:
            raise click.UsageError("A record is complete: no --weights, --model, --threshold, --data or --record.")
        return _replayed(session, Path(image))
    if weights is None and model is None:
        model = zoo.DEFAULT
    check(weights=weights, model=model, device=device, data=data, format=format, detects=True)
    from ..data.sources import Source, require_any
    from ..files import require_writable

    if data is None:
        require_any([Source(image)])
    if Source(image).is_video:
        raise FcosError(f"{image} is no image: `fcos explain` looks at one image, `fcos detect` at videos and cameras.")
    if picture:
        require_writable(output)
    session.start(device)
    from ..predict.replay import require_own, write_record

    if record is not None:
        require_own(record.expanduser())
    pixels, replay, account, name = _looked_at(session, image, weights, model, data, format, device, options)
    found = _told(replay, account)
    files: dict[str, Any] = {"record": None, "picture": None}
    if record is not None:
        write_record(record.expanduser(), replay)
        files["record"] = record
    if picture:
        files["picture"] = _drawn(output.expanduser(), name, pixels, found, replay.class_names)
    height, width = pixels.shape[:2]
    result = {"image": name, "width": width, "height": height, **found, **files}
    return Result(result, view_of_explanation(found, [path for path in files.values() if path]))


def _looked_at(
    session: Session, image: str, weights: str | None, model: str | None, data: Path | None, format: str | None,
    device: str | None, options: dict[str, Any],
) -> tuple[np.ndarray, Replay, Seen | None, str]:  # fmt: skip
    """The pixels of the image, what the detector saw there, the account of it if something is marked, and its name."""
    from ..data.sources import Source, read
    from ..evaluation.tally import Sight
    from ..modeling.record import recording, require_followed
    from ..predict.predictor import Predictor
    from ..predict.replay import Replay
    from ..train.marked import image_of, with_labels_of
    from ..train.own_data import holds_config

    if model is None and not zoo.is_name(str(weights)) and not holds_config(str(weights)):
        raise FcosError(f"{weights} does not say what detector it is of: add --model NAME (`fcos zoo` lists them).")
    there, names = image_of(data, image, format) if data is not None else (None, ())
    pixels = read(Source(image if there is None else there["file_name"]), 1 << 26, 20.0)
    predictor = Predictor(
        model or str(weights), weights=weights, device=device, score_threshold=options["threshold"], otherwise=0.5,
        allow_py=not session.no_py, force_recipe=options["force_recipe"], tta=False,
    )  # fmt: skip
    if there is not None:
        there = with_labels_of(there, names, predictor.class_names, Path(str(data)))
    require_followed(predictor.model)
    with recording(predictor.model) as records:
        predictor(pixels, "RGB")
    least, class_names = predictor.least, tuple(predictor.class_names)
    name = image if there is None else str(there["file_name"])
    replay = Replay(records[0], class_names, least, name)
    if there is None:
        return pixels, replay, None, name
    dense: Any = predictor.model.dense
    sight = Sight.of(records[0], 0, dense.assigner, there, options["iou"])
    return pixels, replay, sight.account(least, class_names, options["iou"]), name


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


def _drawn(folder: Path, name: str, pixels: np.ndarray, found: dict[str, Any], names: tuple[str, ...]) -> Path:
    from ..data.sources import Source
    from ..evaluation.explanation import RIGHT
    from ..visualize import free_name, save_picture
    from ..visualize.explanation import Absent, Mark, draw_explanation

    marks = [
        Mark(
            row["box"], names.index(row["class"]), row["score"], row["location"],
            [other["box"] for other in row["suppressed"]],
            "" if row.get("verdict", RIGHT) == RIGHT else f"({row['verdict']})",
        ) for row in found["detections"]
    ]  # fmt: skip
    absent = [Absent(row["box"], names.index(row["class"]), row["cause"]) for row in found.get("missed", ())]
    path = free_name(folder, Source(name).stem, ())
    return save_picture(draw_explanation(pixels, marks, absent, names), path)
