"""`fcos detect`: objects in images, as pictures and as data."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from .. import zoo
from ..errors import FcosError
from . import options as shared
from . import thresholds
from .checks import check
from .session import Result, Session, fcos_command


@fcos_command("detect")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE_OR_URL_OR_FOLDER...")
@shared.weights()
@shared.model()
@shared.offline
@shared.force_recipe
@thresholds.threshold
@click.option("--calibrate", is_flag=True, help="Report scores that tell how often a detection is right.")
@shared.output(Path("output", "detections"), "Folder for the pictures with boxes.")
@click.option("--pictures/--no-pictures", default=True, help="Whether to write them.")
@shared.device
@shared.max_pixels
@click.option(
    "--optimize", type=click.Choice(["fp32", "bf16"]),
    help="Run a faster copy of the model: fp32 with the same detections, bf16 with nearly the same.",
)  # fmt: skip
@click.option("--limit-mb", type=shared.POSITIVE, default=64, show_default=True, help="Largest download.")
@click.option("--timeout", type=shared.POSITIVE, default=20, show_default=True, help="Seconds to wait for an address.")
def command(
    session: Session, images: tuple[str, ...], weights: str | None, model: str | None, force_recipe: bool,
    threshold: Any, calibrate: bool, output: Path, pictures: bool, device: str | None, optimize: str | None,
    limit_mb: float, timeout: float,
) -> Result:  # fmt: skip
    """Find objects in images, in all images of a folder, and at http(s) addresses.

    Without --weights the published weights of --model are fetched, by default torchvision's of fcos_resnet50_fpn.

    Of the files in the output folder, only pictures of an earlier run are replaced; others make a picture take another
    name. An image that cannot be read is named and left out; the exit code is 1 then. With --json, boxes are
    [left, top, right, bottom] in pixels of the image.
    """
    if weights is None and model is None:
        model = zoo.DEFAULT
    check(weights=weights, model=model, device=device, images=images, output=output if pictures else None, detects=True)
    session.start(device)
    from ..data.sources import expand, read
    from ..predict.predictor import Predictor
    from ..train.own_data import holds_config
    from ..visualize import free_name, save_picture

    sources = expand(images)
    if model is None and not zoo.is_name(str(weights)) and not holds_config(str(weights)):
        raise FcosError(f"{weights} does not say what detector it is of: add --model NAME (`fcos zoo` lists them).")
    predictor = Predictor(
        model or str(weights), weights=weights, device=device, score_threshold=threshold, optimize=optimize or False,
        allow_py=not session.no_py, force_recipe=force_recipe, otherwise=0.5, calibrate=calibrate,
    )  # fmt: skip
    found: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    taken = {Path(source.where) for source in sources if not source.is_address}  # nor is what is read overwritten
    with session.progress("detecting", len(sources)) as progress:
        for done, source in enumerate(sources, start=1):
            try:
                pixels = read(source, int(limit_mb * (1 << 20)), timeout)
                instances = predictor(pixels, image_format="RGB")["instances"].to("cpu")
            except FcosError as error:
                failed.append({"image": source.where, "error": str(error)})
                session.say(f"error: {error}")
            else:
                row: dict[str, Any] = {"image": source.where, "width": pixels.shape[1], "height": pixels.shape[0]}
                row["detections"] = predictor.describe(instances)
                if pictures:
                    row["picture"] = path = free_name(output, source.stem, taken)
                    taken.add(path)
                    save_picture(predictor.draw(pixels, instances, image_format="RGB"), path)
                found.append(row)
            progress.update(done)
    least = predictor.thresholds or {}
    data = {
        "images": found, "failed": failed, "threshold": thresholds.single(least), "thresholds": least,
        "classes": predictor.class_names,
    }  # fmt: skip
    return Result(data, _view(found, failed, thresholds.told(least)), exit_code=1 if failed else 0)


def _view(found: list[dict[str, Any]], failed: list[dict[str, str]], least: str) -> Any:
    table = Table.grid(padding=(0, 2))
    for row in found:
        counts = Counter(detection["class"] for detection in row["detections"])
        objects = ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing"
        table.add_row(Text(str(row["image"]), "bold"), objects, Text(str(row.get("picture", "")), "cyan"))
    if found and not any(row["detections"] for row in found):
        table.add_row(Text(f"No score is above {least}; --threshold lowers it.", "dim"))
    if failed:
        table.add_row(Text(f"{len(failed)} of {len(found) + len(failed)} images could not be used.", "red"))
    return table
