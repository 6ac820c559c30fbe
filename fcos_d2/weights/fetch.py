"""Files from addresses."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlparse

from detectron2.checkpoint.catalog import ModelCatalog
from detectron2.utils.file_io import PathManager

from ..errors import FcosError

__all__ = ["fetch", "is_address", "is_backbone_only"]

_ZOO_PREFIXES = ("detectron2://ImageNetPretrained/", "catalog://ImageNetPretrained/")
_MODEL_ZOO = "https://dl.fbaipublicfiles.com/detectron2/"


def is_address(path: str) -> bool:
    """Whether it names something to download (https://, detectron2://, catalog://) rather than a file."""
    return len(urlparse(path).scheme) > 1


def is_backbone_only(path: str) -> bool:
    """Whether an address names ImageNet weights, which hold no detector."""
    return path.startswith(_ZOO_PREFIXES)


def fetch(path: str) -> Path:
    """The local file of a path or an address; what is downloaded is kept in the cache of iopath.

    Raises:
        FcosError: there is no such file, or it cannot be downloaded; the message names the address.
    """
    if not is_address(path):
        file = Path(path).expanduser()
        if not file.is_file():
            raise FcosError(f"The weights {path} do not exist.")
        return file
    address = path
    if path.startswith("detectron2://"):
        address = _MODEL_ZOO + path.removeprefix("detectron2://")
    try:
        if path.startswith("catalog://"):
            address = ModelCatalog.get(path.removeprefix("catalog://"))
        return Path(PathManager.get_local_path(path))
    except Exception as error:  # whatever the network or the catalog says
        raise FcosError(
            f"The weights {address} cannot be fetched ({type(error).__name__}): pass train.init_checkpoint= "
            "(MODEL.WEIGHTS= with YAML keys) to train from scratch, or the path of a local file."
        ) from error
