"""Files of weights by path, by address, by the name of a variant, and by names in the table of addresses."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from urllib.parse import urlparse

from detectron2.checkpoint import catalog
from detectron2.utils.file_io import PathManager

from ..errors import FcosError
from ..hub import obtain, row_of
from ..paths import is_address
from ..zoo import is_name, published
from ..zoo.addresses import ADDRESSES
from .ready import ready

__all__ = ["fetch", "is_address", "is_backbone_only", "is_published", "published"]

# Prefixes of ImageNet weights, and of tables that are data here; other names with them cannot be looked up.
_IMAGENET = ("detectron2://ImageNetPretrained/", "catalog://ImageNetPretrained/")
_TABLES = ("torchvision://", "open-mmlab://")
_FACEBOOK = "https://dl.fbaipublicfiles.com/detectron2/"


def is_backbone_only(path: str) -> bool:
    """Whether an address names ImageNet weights, which hold no detector."""
    return path.startswith(_IMAGENET) or (path in ADDRESSES and ADDRESSES[path].backbone)


def is_published(path: str) -> bool:
    """Whether it is the name of a variant with published weights, and not that of a file."""
    return not is_address(path) and not Path(path).expanduser().exists() and published(path) is not None


def fetch(path: str | Path) -> Path:
    """The local file of a path, an address, a variant, or a name in `zoo.addresses`.

    What is downloaded is kept in the cache folder, see `hub`, and checked each time, before anything reads it. A
    variant's weights come as a checkpoint of ours, see `ready`.

    Raises:
        FcosError: there is no such file, it cannot be downloaded, or its bytes are others than published; the message
            names the address.
    """
    path = str(path)
    if not is_address(path):
        file = Path(path).expanduser()
        if file.exists():
            return file
        if is_name(path):
            return ready(path)
        raise FcosError(f"The weights {path} do not exist.")
    if {"..", "."} & {*path.split("/"), *urlparse(path).path.split("/")}:  # it could lie outside the cache
        raise FcosError(f"The address {path} leads upwards (..): give the address that it stands for.")
    if path not in ADDRESSES and path.startswith(_TABLES):
        near = get_close_matches(path, ADDRESSES, 3, 0.5) or [name for name in ADDRESSES if name.startswith(_TABLES)]
        raise FcosError(f"{path} names no weights that are known here; there are: {', '.join(near)}.")
    if row := row_of(_in_the_open(path)):
        return obtain(row)
    try:
        return Path(PathManager.get_local_path(path))
    except Exception as error:  # whatever the handler of that kind of address says
        raise FcosError(
            f"The weights {path} cannot be fetched ({type(error).__name__}): pass train.init_checkpoint= "
            "(MODEL.WEIGHTS= with YAML keys) to train from scratch, or the path of a local file."
        ) from error


def _in_the_open(path: str) -> str:
    """The https address that a name of Detectron2's catalog stands for, where the table of addresses has not got it."""
    if path in ADDRESSES or not path.startswith(("detectron2://", "catalog://")):
        return path
    prefix, _, name = path.partition("://")
    if prefix == "detectron2":
        return f"{_FACEBOOK}{name}"
    try:
        return catalog.ModelCatalog.get(name)
    except (RuntimeError, KeyError) as error:
        raise FcosError(f"{path} names no weights of Detectron's catalog.") from error
