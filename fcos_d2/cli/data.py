"""`fcos data`: data sets to other formats, divided, and looked at."""

from __future__ import annotations

import dataclasses
import shlex
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..errors import FcosError
from . import options as shared
from .session import Result, Session, fcos_command

if TYPE_CHECKING:
    from ..data.convert import Account

# What is written, and how images get there; a test compares them with the tables of `fcos_d2.data`.
FORMATS, WAYS = ("coco", "yolo", "voc"), ("copy", "link", "none")

command = click.Group(
    "data",
    help="Data sets: write one in another format, divide one, or look at one. Nothing in the source is changed.",
    epilog="`fcos data COMMAND --help` tells more; each takes --json and --debug.",
)

_source = click.argument("source", metavar="SRC", type=click.Path(path_type=Path))
_destination = click.argument("destination", metavar="DST", type=click.Path(path_type=Path))
_format = click.option("--format", help="The format of SRC; by default told from its files.")
_images = click.option(
    "--images", type=click.Choice(WAYS), default="copy", show_default=True,
    help="Copy the images to DST, link them, or write labels alone.",
)  # fmt: skip
_overwrite = click.option(
    "--overwrite", is_flag=True, help="Replace DST if `fcos data` has made it and nothing in it was changed since."
)


@fcos_command("convert", short_help="Write a data set in another format.")
@_source
@_destination
@click.option("--to", "target", type=click.Choice(FORMATS), required=True, help="The format of DST.")
@_format
@_images
@_overwrite
def convert(
    session: Session, source: Path, destination: Path, target: str, format: str | None, images: str, overwrite: bool
) -> Result:
    """Write the data set SRC, in any format that is read, to the folder DST in another one.

    \b
    fcos data convert my_data my_yolo --to yolo
    fcos data convert my_yolo my_coco --to coco --images link

    DST must not exist, or be empty. Parts (train, val, test) and labels stay what they are, degenerate boxes too;
    what DST's format has no way to say is counted. What was written is read again and compared.
    """
    from ..data import find_dataset
    from ..data.parts import open_parts

    layout = find_dataset(source, format)
    return _write(session, source, layout, open_parts(layout), destination, target, images, overwrite)


@fcos_command("split", short_help="Divide one into train, val and test.")
@_source
@_destination
@click.option("--val", type=click.FloatRange(0, 1, min_open=True, max_open=True), help="Share of images for val.")
@click.option("--test", type=click.FloatRange(0, 1, min_open=True, max_open=True), help="Share of images for test.")
@click.option("--stratify", is_flag=True, help="Give each part an equal share of the boxes of each class.")
@click.option(
    "--group", metavar="folder|REGEX",
    help="Keep images together whose folder, or what a pattern finds in their names, is the same.",
)  # fmt: skip
@click.option("--pool", is_flag=True, help="Divide the images of all parts anew, not those of train alone.")
@click.option("--to", "target", type=click.Choice(FORMATS), help="The format of DST; by default that of SRC, or coco.")
@_format
@_images
@_overwrite
def split(
    session: Session, source: Path, destination: Path, val: float | None, test: float | None, stratify: bool,
    group: str | None, pool: bool, target: str | None, format: str | None, images: str, overwrite: bool,
) -> Result:  # fmt: skip
    """Divide the train part of SRC, and write all parts to the folder DST.

    \b
    fcos data split my_data my_split --val 0.2 --test 0.1
    fcos data split my_data my_split --val 0.2 --group '^(patient\\d+)_'

    An image's part depends on its name (with --group: its group's) alone, so images that are added later move no
    other; val has the images that --val-fraction takes. --stratify weighs all images instead.
    """
    from ..data import find_dataset
    from ..data.parts import divided, open_parts

    shares = {part: share for part, share in (("val", val), ("test", test)) if share is not None}
    if not shares:
        raise click.UsageError("Give the share of a part: --val 0.2, --test 0.1, or both.")
    layout = find_dataset(source, format)
    parts = divided(open_parts(layout), shares, group=group, stratify=stratify, pool=pool)
    target = target or (layout.format if layout.format in FORMATS else "coco")
    return _write(session, source, layout, parts, destination, target, images, overwrite)


def _write(
    session: Session, source: Path, layout: Any, parts: Mapping[str, Any], destination: Path, target: str, images: str,
    overwrite: bool,
) -> Result:  # fmt: skip
    """What convert and split have in common."""
    from ..data.convert import write_set

    if images == "link" and source.is_file() and source.suffix.lower() == ".zip":
        raise FcosError(f"Links to the images of {source} would lead into the cache: copy them with --images copy.")
    with session.progress("images", sum(len(part.files) for part in parts.values())) as progress:
        accounts = write_set(
            parts, destination, target, images, source=layout.root, overwrite=overwrite,
            progress=lambda done, total: progress.update(done),
        )  # fmt: skip
    data = {
        "source": source, "format": layout.format, "destination": destination, "to": target, "images": images,
        "parts": {name: dataclasses.asdict(account) for name, account in accounts.items()},
    }  # fmt: skip
    return Result(data, _view(data, accounts))


# What is told beside the counts: field of an account, sentence. Of reasons to leave labels out, the words.
_COUNTS = (
    ("clipped", "{} boxes are cut to their image, beyond which {to} cannot reach."),
    ("degenerate", "{} degenerate boxes are kept as they are; training leaves them out."),
)
_REASONS = {
    "crowd": "crowd regions ({to} has none)", "no box": "annotations without a box",
    "unreadable": "labels that cannot be read", "not finite": "boxes that are not finite, or beyond a million pixels",
    "negative size": "boxes of negative size", "outside the image": "boxes outside their image",
    "no image": "degenerate boxes of no image", "no class": "degenerate boxes of no class",
}  # fmt: skip


def _notes(to: str, accounts: Collection[Account]) -> list[str]:
    """What was left out, changed, or has no place in the format, in a sentence each."""
    left_out: Counter[str] = Counter()
    not_said: Counter[str] = Counter()
    for one in accounts:
        left_out.update(one.left_out)
        not_said.update(one.not_said)
    told = [f"Left out: {count} {_REASONS[reason].format(to=to)}." for reason, count in left_out.items()]
    for key, sentence in _COUNTS:
        if count := sum(getattr(one, key) for one in accounts):
            told.append(sentence.format(count, to=to))
    if not_said:
        told.append(f"{to} has no field for: {', '.join(f'{name} ({n} labels)' for name, n in not_said.items())}.")
    renamed = {old: new for one in accounts for old, new in one.renamed.items()}
    if renamed:
        old, new = next(iter(renamed.items()))
        told.append(f"{len(renamed)} images have other names, the first: {old} is {new}.")
    classes = next(iter(accounts)).classes_renamed
    told += [f"The class {old!r} is called {new!r}." for old, new in classes.items()]
    return told


def _view(data: Mapping[str, Any], accounts: Mapping[str, Account]) -> Any:
    table = Table.grid(padding=(0, 3))
    for name, one in accounts.items():
        left = f"{one.annotations - one.written} left out" if one.annotations > one.written else ""
        table.add_row(f"  {name}", f"{one.images} images", f"{one.written} of {one.annotations} labels", left)
    title = f"{data['source']} ({data['format']}) → {data['destination']} ({data['to']})"
    notes = [Text(f"  {note}", "yellow") for note in _notes(data["to"], list(accounts.values()))]
    lines = [_after(data, accounts)] if data["images"] != "none" else _links(data, accounts)
    commands = [Text(f"  {line}", "cyan", no_wrap=True, overflow="ignore") for line in lines]
    return Group(Text(title, "bold"), table, *notes, Text("\nNow", "bold"), *commands)


def _after(data: Mapping[str, Any], accounts: Collection[str]) -> str:
    where = str(data["destination"])
    if "train" in accounts:
        return shlex.join(["fcos", "train", "--data", where, *(() if "val" in accounts else ("--val-fraction", "0.2"))])
    return shlex.join(["fcos", "data", "show", where, "-o", "sheet.jpg"])


def _links(data: Mapping[str, Any], accounts: Mapping[str, Account]) -> list[str]:
    """How the images get to where the labels look for them."""
    homes: dict[str, list[Path | None]] = {}
    for one in accounts.values():
        homes.setdefault(one.home, []).append(one.images_from)
    lines = []
    for home, folders in homes.items():
        target, sources = str(Path(data["destination"], home)), sorted({str(one.resolve()) for one in folders if one})
        if None in folders or len(sources) > 1:
            lines.append(f"# {target} takes the images, by the names that the labels have")
        else:
            lines.append(shlex.join(["ln", "-s", *sources, target]))
    return lines


@fcos_command("show", short_help="Some images with their boxes, on one sheet.")
@_source
@shared.path("-o", "--output", required=True, help="The picture to write, a .jpg file.")
@click.option("--number", type=click.IntRange(1, 1000), default=24, show_default=True, help="Images to show.")
@click.option("--seed", type=int, default=0, show_default=True, help="Which images: the same ones for the same seed.")
@click.option("--class", "classes", multiple=True, help="Show only boxes of this class, repeatable.")
@click.option("--split", "part", type=click.Choice(["train", "val", "test"]), help="Show only images of this part.")
@click.option("--columns", type=click.IntRange(1, 50), default=4, show_default=True, help="Images side by side.")
@click.option("--tile", type=click.IntRange(64, 2048), default=360, show_default=True, help="Width of each, pixels.")
@_format
@shared.max_pixels
def show(
    session: Session, source: Path, output: Path, number: int, seed: int, classes: tuple[str, ...], part: str | None,
    columns: int, tile: int, format: str | None,
) -> Result:  # fmt: skip
    """Draw some images of the data set SRC with their boxes and classes on one sheet.

    \b
    fcos data show my_data -o sheet.jpg
    fcos data show my_data -o stars.jpg --class star --split val --number 12

    Crowd regions, and boxes that training leaves out, are marked. An image that cannot be read is named and left out;
    the exit code is 1 then. A file is replaced only if `fcos` has drawn it.
    """
    from ..data import find_dataset
    from ..data.parts import open_parts
    from ..data.sample import choose, read_small, sheet_names
    from ..visualize import Drawable, draw_sheet, free_name, save_picture

    output = output.expanduser()
    if output.suffix != ".jpg":
        raise FcosError(f"{output} does not end in .jpg, which is what a sheet is: choose another --output.")
    if free_name(output.parent, output.stem, ()) != output.with_suffix(".jpg"):
        raise FcosError(f"{output} is there and was not drawn by fcos: choose another --output.")
    layout = find_dataset(source, format)
    if part is not None and part not in layout.splits:
        raise FcosError(f"The data set {source} has no {part} part; it has {', '.join(layout.splits)}.")
    splits = {name: split for name, split in layout.splits.items() if part in (None, name)}
    parts = open_parts(dataclasses.replace(layout, splits=splits))
    chosen = choose(parts, number, seed, classes)
    failed: list[dict[str, str]] = []

    def tiles() -> Iterator[Any]:
        with session.progress("drawing", len(chosen)) as progress:
            for done, one in enumerate(chosen, start=1):
                try:
                    image, boxes = read_small(one, tile)
                except FcosError as error:
                    failed.append({"image": str(one.path), "error": str(error)})
                    session.say(f"error: {error}")
                else:
                    yield image, Drawable(boxes, one.classes), f"{one.part}: {one.name}"
                progress.update(done)

    total = sum(len(there.files) for there in parts.values())
    which = f" with {', '.join(classes)}" if classes else ""
    told = f"{source.resolve().name}: {len(chosen)} of {total} images{which}"
    save_picture(draw_sheet(tiles(), sheet_names(parts), told, columns, tile), output)
    images = [{"image": one.path, "split": one.part, "boxes": len(one.boxes)} for one in chosen]
    data = {"source": source, "format": layout.format, "output": output, "images": images, "failed": failed}
    return Result(data, Text(f"{told}: {output}"), exit_code=1 if failed else 0)


for _command in (convert, split, show):
    command.add_command(_command)
