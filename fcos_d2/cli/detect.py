"""`fcos detect`: objects in images and videos, as pictures and as data."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from .. import zoo
from ..paths import is_exported, is_repository
from ..predict.outputs import FORMATS, Results, write
from ..zoo.tta import NONE
from . import cluster as many
from . import engineoptions, thresholds
from . import options as shared
from .checks import check, require_package
from .endings import how_to_go_on, stopping
from .session import Result, Session, fcos_command
from .views import view_of_detections

if TYPE_CHECKING:
    from ..data.sources import Source
    from ..predict.journal import Journal
    from ..predict.look import Look
    from ..predict.predictor import Predictor


@dataclass(frozen=True)
class Wanted:
    """What the options say of how sources are looked at and what is written."""

    output: Path
    pictures: bool
    formats: tuple[str, ...]
    resume: bool
    batch_size: int | None
    every: int
    track: bool
    show: bool
    tile: bool
    tile_size: int | None
    tile_overlap: int | None
    tile_scale: float | None
    max_memory: int | None
    limit_mb: float
    timeout: float

    @property
    def in_tiles(self) -> bool:
        said = (self.tile_size, self.tile_overlap, self.tile_scale, self.max_memory)
        return self.tile or any(value is not None for value in said)

    def needs_files(self, sources: Sequence[Source]) -> bool:
        """Whether results are kept on disk: where somebody asks for them, or where a run is long."""
        context = click.get_current_context()
        named = context.get_parameter_source("output") is not ParameterSource.DEFAULT
        long = len(sources) > 1 or any(source.is_video for source in sources)
        return bool(self.formats) or self.resume or ((self.pictures or named) and long)


@fcos_command("detect")
@click.argument("images", nargs=-1, required=True, metavar="SOURCE...")
@shared.weights()
@shared.model()
@shared.offline
@shared.force_recipe
@thresholds.threshold
@click.option("--calibrate", is_flag=True, help="Report scores that tell how often a detection is right.")
@shared.output(Path("output", "detections"), "Folder for pictures and results.")
@click.option("--pictures/--no-pictures", default=True, help="Whether to write pictures and videos with boxes.")
@click.option(
    "--format", "formats", type=click.Choice(list(FORMATS)), multiple=True,
    help="Write the results, too; repeatable. labelstudio, yolo and coco are labels to correct.",
)  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with the results in OUTPUT; what is in them is not done again.")
@click.option(
    "--batch-size", type=click.IntRange(1), help="Images of equal size at a time.  [default: 8 on a GPU, else 1]"
)
@click.option("--every", type=click.IntRange(1), default=1, help="Of videos, look at each N-th frame.", metavar="N")
@click.option("--track", is_flag=True, help="Number the objects of videos.")
@click.option("--tile", is_flag=True, help="Look at large images in overlapping tiles, at full resolution.")
@click.option("--tile-size", type=click.IntRange(256), help="Side of a tile as the network sees it.  [default: 1024]")
@click.option("--tile-overlap", type=click.IntRange(0), help="Pixels that neighbours share.  [default: a quarter]")
@click.option("--tile-scale", type=shared.POSITIVE, help="Enlarge images by this factor first.  [default: 1]")
@click.option("--max-memory", type=shared.MEMORY, help="Memory that the process may need: tiles are chosen by it.")
@shared.tta
@click.option("--show", is_flag=True, help="Open a window with what is found; q or Esc ends.")
@shared.device
@shared.max_pixels
@shared.optimize
@engineoptions.engine
@click.option("--limit-mb", type=shared.POSITIVE, default=64, show_default=True, help="Largest download of an image.")
@click.option("--timeout", type=shared.POSITIVE, default=20, show_default=True, help="Seconds to wait for an address.")
@many.options
def command(
    session: Session, images: tuple[str, ...], weights: str | None, model: str | None, force_recipe: bool,
    threshold: Any, calibrate: bool, device: str | None, optimize: str | None, tta: str | None, engine: str | None,
    cluster: Mapping[str, Any] | None, **options: Any,
) -> Result:  # fmt: skip
    """Find objects in images and videos.

    SOURCE is an image, a video, a folder of them, a pattern ('shots/*.jpg'), a .txt file with a path or an address in
    each line (- reads them from standard input), an http(s) address of an image or a video, a camera (0 or webcam), or
    a stream (rtsp://...).

    --weights may be a file of `fcos export` (.onnx, .xml), which runs without PyTorch and starts at once.

    Without --weights the published weights of --model are fetched, by default torchvision's of fcos_resnet50_fpn.

    OUTPUT gets pictures and videos with boxes and, of several sources, detections.jsonl: a line for each image or
    frame, written as it goes. Ctrl-C keeps what is done; --resume goes on. No file that was there is replaced but
    pictures of an earlier run. A source that cannot be read is named and left out; the exit code is 1 then. With
    --json, boxes are [left, top, right, bottom] in pixels of the image.
    """
    if is_repository(weights):
        from ..hub import located

        weights = located(str(weights))
    if weights is None and model is None:
        model = zoo.DEFAULT
    wanted = Wanted(**options)
    if wanted.in_tiles and tta not in (None, NONE):
        raise click.UsageError("--tta looks at whole images, so it does not go with --tile: leave one of them out.")
    if is_exported(weights) or engine not in (None, "torch"):
        others = {"optimize": optimize, "tta": tta, "device": device, "engine-cluster": cluster}
        engineoptions.require_plain(weights, model=model, **others)
        sources = _sources(images, wanted)
        many.require(cluster, wanted, sources)
        return _by_engine(session, str(weights), engine, threshold, calibrate, sources, wanted)
    check(weights=weights, model=model, device=device, detects=True)
    sources = _sources(images, wanted)
    many.require(cluster, wanted, sources)
    session.start(device)
    from ..predict.predictor import Predictor

    given = dict(
        source=model or str(weights), weights=weights, device=device, score_threshold=threshold,
        optimize=optimize or False, allow_py=not session.no_py, force_recipe=force_recipe, otherwise=0.5,
        calibrate=calibrate, tta=NONE if wanted.in_tiles else tta,
    )  # fmt: skip
    predictor = Predictor(**given)
    told = [predictor.thresholds, calibrate, *([str(predictor.tta)] if predictor.tta else [])]
    run = _digest(weights, model, told, optimize, wanted)
    if cluster is not None:
        anew = partial(_look_anew, {**given, "plugins": session.plugins}, wanted)
        least, names = predictor.thresholds or {}, predictor.class_names
        return many.detected(session, cluster, anew, sources, wanted, run, names, least, str(model or weights))
    look = _look(predictor, wanted)
    return _detected(
        session, look, predictor.class_names, predictor.thresholds, sources, wanted, run, str(model or weights)
    )


def _by_engine(
    session: Session, weights: str, engine: str | None, threshold: Any, calibrate: bool, sources: list[Source],
    wanted: Wanted,
) -> Result:  # fmt: skip
    """Without PyTorch where the weights are an exported file."""
    from ..engines.choice import open_engine
    from ..engines.look import ByEngine

    if wanted.in_tiles:
        raise click.UsageError("--tile is of PyTorch's engine: leave --engine out, and give a checkpoint as --weights.")
    if not is_exported(weights):
        check(weights=weights)
        session.start()
    made = open_engine(weights, engine or engineoptions.engine_of(weights), threshold=threshold, calibrate=calibrate)
    limit = int(wanted.limit_mb * (1 << 20))
    look = ByEngine(engine=made, batch=wanted.batch_size or 1, limit=limit, timeout=wanted.timeout)
    run = _digest(weights, None, [made.thresholds, calibrate, made.name], None, wanted)
    return _detected(session, look, made.class_names, made.thresholds, sources, wanted, run, weights)


def _sources(images: Sequence[str], wanted: Wanted) -> list[Source]:
    """What is to be looked at; what is wrong with the options is told before PyTorch is imported."""
    from ..data.sources import expand, require_any
    from ..files import require_writable

    if wanted.pictures or wanted.formats or wanted.resume:
        require_writable(wanted.output)
    sources = expand(images)
    require_any(sources)
    if wanted.track:
        require_package("trackers", "--track", "fcos_d2[track]")
    if wanted.show:
        from .window import require_display

        require_display()
    return sources


def _digest(weights: str | None, model: str | None, threshold: Any, optimize: str | None, wanted: Wanted) -> str:
    """What decides about results besides the sources, in few letters."""
    from ..files import sha256_of

    files = [sha256_of(name) if name and Path(name).is_file() else name for name in (weights, model)]
    tiles = (wanted.in_tiles, wanted.tile_size, wanted.tile_overlap, wanted.tile_scale, wanted.max_memory)
    said = json.dumps([*files, threshold, optimize, wanted.every, wanted.track, *tiles])
    return hashlib.sha256(said.encode()).hexdigest()[:12]


def _look_anew(given: Mapping[str, Any], wanted: Wanted) -> Look:
    """How a detector looks at an image, in a process of its own."""
    from ..predict.predictor import Predictor

    return _look(Predictor(**given), wanted)


def _look(predictor: Predictor, wanted: Wanted) -> Look:
    from ..predict.look import InTiles, Whole
    from ..predict.tiles import Tiling
    from .memory import limited

    batch = wanted.batch_size or (8 if predictor.device.type == "cuda" else 1)
    limit, timeout = int(wanted.limit_mb * (1 << 20)), wanted.timeout
    if not wanted.in_tiles:
        return Whole(predictor=predictor, batch=batch, limit=limit, timeout=timeout)
    size = wanted.tile_size or Tiling.size
    overlap = size // 4 if wanted.tile_overlap is None else wanted.tile_overlap
    tiling = Tiling(size, overlap, wanted.tile_scale or 1.0, batch)
    memory = None if wanted.max_memory is None else limited(wanted.max_memory, predictor.device)
    return InTiles(predictor, tiling, memory, limit, timeout)


def _detected(
    session: Session, look: Look, class_names: Sequence[str], thresholds_of: Mapping[str, float] | None,
    sources: list[Source], wanted: Wanted, run: str, name: str,
) -> Result:  # fmt: skip
    from ..predict.job import DetectionJob, Interrupted

    code, least = 0, thresholds_of or {}
    threshold = thresholds.single(least)
    with _journal(wanted, sources, run) as journal, session.progress("detecting", len(sources)) as progress:
        job = DetectionJob(
            look, journal, min(least.values(), default=0.5),
            wanted.output if wanted.pictures else None,
            wanted.every, wanted.track, wanted.timeout, tell=progress.update, complain=session.say,
        )  # fmt: skip
        if wanted.show:
            from .window import show

            job.show = show
        try:
            with stopping():
                job.run(sources)
        except Interrupted as error:
            code = error.code
        whole = (row for row in journal if "frame" not in row and row.get("complete", True))
        done = sum(1 for _ in whole) + len(job.failed) if code else 0
        kept = journal.path if wanted.needs_files(sources) and not journal.is_empty else None
        results = Results(journal, class_names, threshold, name)
        new = bool(job.seen) or not wanted.resume
        written = write(wanted.output, journal.stem, wanted.formats, results, new) if not code and kept else {}
        data = {
            "images": list(results.images()) if session.json else [], "failed": job.failed,
            "threshold": threshold, "thresholds": least,
            "classes": class_names, "results": kept, "files": written, "interrupted": bool(code),
            "videos": [row for row in journal if "video" in row] if session.json else [],
        }  # fmt: skip
    if code:
        session.say(how_to_go_on(done, kept, len(sources)))
    files = [*([kept] if kept else []), *written.values()]
    return Result(
        data, view_of_detections(job.seen, job.failed, thresholds.told(least), files), code or int(bool(job.failed))
    )


@contextmanager
def _journal(wanted: Wanted, sources: Sequence[Source], run: str) -> Iterator[Journal]:
    """Where results go: into the output folder, or into a file that is gone at the end."""
    from ..predict.journal import Journal

    with tempfile.TemporaryDirectory(prefix="fcos-") as elsewhere:
        folder = wanted.output.expanduser() if wanted.needs_files(sources) else Path(elsewhere)
        journal = Journal(folder, run, wanted.resume)
        try:
            yield journal
        finally:
            journal.close()
