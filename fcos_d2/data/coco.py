"""COCO JSON in a folder, found, checked and entered into Detectron2's catalog."""

from __future__ import annotations

import codecs
import functools
import hashlib
import json
import locale
import logging
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..errors import FcosError
from ..files import cache_folders, write_atomically
from .clean import Report, clean
from .divide import place
from .layout import Split
from .meant import shown
from .pictures import fit_to_files, require_files, require_sizes
from .texts import bytes_of, parse_json, read_json

__all__ = ["Prepared", "class_names", "match_classes", "prepare", "read", "register_coco", "shortened"]

logger = logging.getLogger("fcos_d2")


def read(split: Split) -> dict:
    """Read a COCO file in UTF-8, UTF-16 or UTF-32; raises FcosError if it is missing or not JSON, e.g. truncated."""
    return read_json(split.annotations)


def _is_read_alike(data: bytes) -> bool:
    """Whether pycocotools, which names no encoding, reads the same text."""
    if data.startswith(codecs.BOM_UTF8) or json.detect_encoding(data) != "utf-8":
        return False
    try:
        return data.isascii() or data.decode(locale.getpreferredencoding(False)) == data.decode("utf-8")
    except UnicodeDecodeError:
        return False


@dataclass(frozen=True)
class Prepared:
    """The checked ground truth of one part, ready to register."""

    split: Split
    coco: dict
    report: Report
    as_read: bool  # whether the file on disk says the same, so that no copy is needed
    share: str = ""  # which share of the file this is; "" for all of it

    @property
    def class_names(self) -> list[str]:
        """Names in the order of the class indices, which is that of the category ids."""
        return [category["name"] for category in sorted(self.coco["categories"], key=lambda row: row["id"])]

    def require_boxes(self) -> None:
        """Raise FcosError if there is nothing to train on."""
        if all(annotation["iscrowd"] for annotation in self.coco["annotations"]):
            raise FcosError(
                f"{self.split.annotations} has no usable box, so there is nothing to train on "
                f"({len(self.coco['images'])} images, {len(self.coco['annotations'])} crowd regions)."
            )

    def divide(self, val_fraction: float) -> tuple[Prepared, Prepared]:
        """Divide the images into a train and a val part by the hash of their file names, so that images which are added
        later move no other. Where that leaves a part empty, it gets the image that is nearest to it.
        """
        if not 0 < val_fraction < 1:
            raise FcosError(f"val_fraction is {val_fraction}; it must lie between 0 and 1, for example 0.2.")
        places = {image["id"]: place(image["file_name"]) for image in self.coco["images"]}
        if len(places) < 2:
            raise FcosError(f"{self.split.annotations} has one image only, which cannot be both train and val.")
        val_ids = {i for i, place in places.items() if place < val_fraction} or {min(places, key=places.__getitem__)}
        if len(val_ids) == len(places):
            val_ids.remove(max(places, key=places.__getitem__))

        everywhere = {*places, None}  # what is left out of no known image counts once, with train

        def share(side: str, ids: set) -> Prepared:
            images = [row for row in self.coco["images"] if row["id"] in ids]
            rows = [row for row in self.coco["annotations"] if row["image_id"] in ids]
            report = self.report.share(rows, everywhere - ids)
            coco = {**self.coco, "images": images, "annotations": rows}
            return replace(self, coco=coco, report=report, as_read=False, share=f"{side} share {val_fraction}")

        return share("train", everywhere - val_ids), share("val", val_ids)

    def taken(self, name: str) -> str | None:
        """What else has this name in Detectron2's catalog; None if nothing has."""
        from detectron2.data import DatasetCatalog, MetadataCatalog  # commands look at folders before PyTorch is there

        if name not in DatasetCatalog.list():
            return None
        registered = MetadataCatalog.get(name).get("fcos_source")
        if registered == _source(self.split, self.share):
            return None
        return " with ".join(filter(None, registered)) if registered else "another program"

    def register(self, name: str) -> str:
        """Enter the part into Detectron2's catalog, where its name may stand for the same files already.

        Raises:
            FcosError: the name already stands for something else.
        """
        from detectron2.data import DatasetCatalog, MetadataCatalog  # commands look at folders before PyTorch is there
        from detectron2.data.datasets import load_coco_json

        if (origin := self.taken(name)) is not None:
            raise FcosError(f"The data set name '{name}' is already taken by {origin}; choose another name.")
        if name in DatasetCatalog.list():
            DatasetCatalog.remove(name)
        if name in MetadataCatalog.list():
            MetadataCatalog.remove(name)
        json_file = str(self.split.annotations) if self.as_read else str(_write_to_cache(self.coco, name))
        image_root = str(self.split.images)
        ids = sorted(category["id"] for category in self.coco["categories"])
        DatasetCatalog.register(name, functools.partial(load_coco_json, json_file, image_root, name))
        MetadataCatalog.get(name).set(
            json_file=json_file,
            image_root=image_root,
            evaluator_type="coco",
            thing_classes=self.class_names,
            thing_dataset_id_to_contiguous_id={number: index for index, number in enumerate(ids)},
            fcos_source=_source(self.split, self.share),
            fcos_stamp=_stamp(self.split.annotations),
            fcos_report=asdict(self.report),
        )
        return name


def prepare(split: Split, reader: Callable[[Split], dict] = read, coco: dict | None = None) -> Prepared:
    """Read, check and clean the ground truth of one part.

    Args:
        split: where it lies.
        reader: that of its format.
        coco: what the reader returned, if it was called already; changed in place.
    Raises:
        FcosError: the annotations are wrong (see `clean`), or image files are missing.
    """
    source = split.annotations
    data = bytes_of(source) if reader is read else b""  # read once: COCO's own file has 450 MB
    alike = reader is read and _is_read_alike(data)
    if coco is None:
        coco = parse_json(data, source) if reader is read else reader(split)
    del data
    changed = fit_to_files(coco, split.images, source)
    if reader is not read:  # other formats leave sizes to the files
        require_files(coco, split.images, source)
        require_sizes(coco, split.images, source)
    report = clean(coco, source)
    require_files(coco, split.images, source)
    return Prepared(split, coco, report, as_read=alike and not (changed or report.changed))


def register_coco(name: str, json_file: str | Path, image_root: str | Path) -> str:
    """Enter a COCO file into Detectron2's catalog.

    The catalog's records are those of Detectron2's `load_coco_json`, without degenerate boxes, with crowd regions
    (`iscrowd` 1) and with images that have no annotation. Where the file lacks what evaluation needs (`area`,
    `iscrowd`, ids from 1), writes it in another way ("12", "0", 1.0) or has degenerate boxes, the metadata's
    `json_file` is a mended copy in the cache folder (`$FCOS_D2_CACHE`, else `~/.cache/fcos_d2`). The metadata's
    `fcos_report` says what became of each annotation: `annotations` = `objects` + `crowds` + those `left_out`; and what
    was `mended`.

    Args:
        name: the data set's name in the catalog; the same name with the same files again is fine.
        json_file: annotations in COCO's format.
        image_root: folder that the file's `file_name`s are relative to.
    Returns:
        The name.
    Raises:
        FcosError: the file is wrong, images are missing, or the name stands for another data set.
    """
    from detectron2.data import DatasetCatalog, MetadataCatalog

    split = Split(Path(json_file).expanduser(), Path(image_root).expanduser())
    if name in DatasetCatalog.list():
        metadata = MetadataCatalog.get(name)
        same = metadata.get("fcos_source") == _source(split, "")
        if same and metadata.get("fcos_stamp") == _stamp(split.annotations) and Path(metadata.json_file).is_file():
            return name
    return prepare(split).register(name)


def class_names(name: str) -> list[str]:
    """Names of a registered data set's classes, in the order of the class indices.

    Raises:
        FcosError: the name is not in Detectron2's catalog, or has no classes.
    """
    from detectron2.data import DatasetCatalog, MetadataCatalog

    if name not in DatasetCatalog.list():
        raise FcosError(f"There is no data set named '{name}' in Detectron2's catalog; register it first.")
    metadata = MetadataCatalog.get(name)
    if metadata.get("thing_classes") is None:
        DatasetCatalog.get(name)  # Detectron2's own registration learns the names by loading
    if names := metadata.get("thing_classes"):
        return list(names)
    raise FcosError(f"The data set '{name}' has no class names ('thing_classes' of its metadata).")


def match_classes(one: Prepared, other: Prepared) -> Prepared:
    """The other part with the category ids of the first, found by the classes' names.

    It may lack some of the names.

    Raises:
        FcosError: it has other names, or names that stand for several classes in another order.
    """
    mine, theirs = one.class_names, other.class_names
    if mine == theirs:
        return other
    extra = [name for name in theirs if name not in mine]
    if extra or len(set(mine)) < len(mine) or len(set(theirs)) < len(theirs):
        lacking = [name for name in mine if name not in theirs]
        extras = (("first", lacking), ("second", extra))
        differences = [f"only in the {which}: {shortened(names)}" for which, names in extras if names]
        raise FcosError(
            f"{one.split.annotations} ({len(mine)} categories) and {other.split.annotations} ({len(theirs)}) must have "
            f"the same categories; {'; '.join(differences) or 'some names repeat, and the order differs'}."
        )
    logger.warning(
        "The categories of %s are matched with those of %s by name, since their ids differ or some are missing.",
        other.split.annotations, one.split.annotations,
    )  # fmt: skip
    numbers = {category["name"]: category["id"] for category in one.coco["categories"]}
    by_id = {category["id"]: numbers[category["name"]] for category in other.coco["categories"]}
    rows = [{**row, "category_id": by_id[row["category_id"]]} for row in other.coco["annotations"]]
    matched = {**other.coco, "categories": one.coco["categories"], "annotations": rows}
    return replace(other, coco=matched, as_read=False)


def shortened(names: list[str]) -> str:
    """Some names for a message, not all of a long list."""
    return ", ".join(map(shown, names[:6])) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _source(split: Split, share: str) -> tuple[str, str, str]:
    which = " ".join(filter(None, (split.part and f"part {split.part}", share)))
    return str(split.annotations.resolve()), str(split.images.resolve()), which


def _stamp(path: Path) -> tuple[int, int] | None:
    """Changes when the file does; None without a file (a format may have folders)."""
    return (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else None


def _write_to_cache(coco: dict, name: str) -> Path:
    """Write a mended copy; its name holds the hash of its content, so equal copies are one file."""
    data = json.dumps(coco).encode()
    label = re.sub(r"[^\w.-]+", "_", name)[:60]
    problems = []
    for folder in cache_folders():
        path = folder / "coco" / f"{label}-{hashlib.sha256(data).hexdigest()[:16]}.json"
        try:
            if not (path.is_file() and path.stat().st_size == len(data)):
                write_atomically(path, lambda file: file.write(data))
            return path
        except FcosError as error:
            problems.append(str(error).rstrip("."))
    raise FcosError(
        f"The mended copy of the data set '{name}' cannot be kept ({'; '.join(problems)}): set FCOS_D2_CACHE to a "
        "folder that can be written."
    )
