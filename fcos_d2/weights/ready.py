"""`ready`: the published weights of a variant as a checkpoint of ours, converted once and kept beside them."""

from __future__ import annotations

import logging
from pathlib import Path

from .. import zoo
from ..errors import FcosError
from ..files import sha256_of
from ..hub import folder_of, lock, obtain, place_of, require
from ..hub.kept import is_whole, read_record, write_record
from ..zoo.addresses import Address
from .convert import checkpoint_of
from .families.torchvision import coco_names
from .published import load
from .saving import save

__all__ = ["ready"]

_FORM = 1  # of converted files: raise it when conversion gives something else, and they are made anew

logger = logging.getLogger("fcos_d2")


def ready(name: str) -> Path:
    """The published weights of a variant as a file that holds its config and COCO's class names, too.

    Where the cache folder cannot be written it is the published file itself.

    Raises:
        FcosError: nobody has published weights of it, they cannot be had, or they do not suit it.
    """
    variant, row = zoo.find(name), require(name)
    place = place_of(row).parent / f"{variant.name}.fcos_d2.pth"
    copy = folder_of(place) / place
    if _is_current(copy, row):
        return copy
    published = obtain(row, variant.full_name)
    try:
        with lock(copy):
            if not _is_current(copy, row):
                _convert(published, variant, row, copy)
    except _NotKept as error:
        logger.info("%s", error)
        return published
    return copy


class _NotKept(FcosError):
    """There is no room for the converted copy."""


def _is_current(copy: Path, row: Address) -> bool:
    """Whether a converted copy is what this version makes of the published file, and as it was written."""
    said = read_record(copy) if copy.is_file() else {}
    return said.get("form") == _FORM and str(said.get("of", "")).startswith(row.sha256) and is_whole(copy)


def _convert(published: Path, variant: zoo.Variant, row: Address, copy: Path) -> None:
    imported = load(published, config=variant.full_name)
    payload = checkpoint_of(imported, variant.full_name)
    payload.setdefault("class_names", coco_names(imported.report.num_classes))
    digest = sha256_of(published)
    payload["published"] = {"variant": variant.full_name, "url": row.url, "sha256": digest, "licence": row.terms.name}
    try:
        save(copy, {key: value for key, value in payload.items() if value is not None})
    except FcosError as error:
        raise _NotKept(str(error)) from error
    write_record(copy, of=digest, form=_FORM, licence=row.terms.name)
