"""Files from addresses and from names of published weights."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import urlparse

from detectron2.checkpoint import catalog  # noqa: F401  # teaches Detectron2's PathManager catalog://
from detectron2.utils.file_io import PathManager
from iopath.common.file_io import get_cache_dir

from ..errors import FcosError
from ..files import sha256_of
from ..paths import is_address
from ..zoo.addresses import ADDRESSES, Address

__all__ = ["fetch", "is_address", "is_backbone_only"]

# Prefixes of ImageNet weights, and of tables that are data here; other names with them cannot be looked up.
_IMAGENET = ("detectron2://ImageNetPretrained/", "catalog://ImageNetPretrained/")
_TABLES = ("torchvision://", "open-mmlab://")


def is_backbone_only(path: str) -> bool:
    """Whether an address names ImageNet weights, which hold no detector."""
    return path.startswith(_IMAGENET) or (path in ADDRESSES and ADDRESSES[path].backbone)


def fetch(path: str | Path) -> Path:
    """The local file of a path, an address, or a name in `zoo.addresses`.

    What is downloaded is kept in the cache of iopath, written whole or not at all. A file whose digest is known is
    checked each time, before anything reads it.

    Raises:
        FcosError: there is no such file, it cannot be downloaded, or its bytes are others than published; the message
            names the address.
    """
    path = str(path)
    if not is_address(path):
        file = Path(path).expanduser()
        if not file.exists():
            raise FcosError(f"The weights {path} do not exist.")
        return file
    row = ADDRESSES.get(path, Address(path))
    if {"..", "."} & {*row.url.split("/"), *urlparse(row.url).path.split("/")}:  # it could lie outside the cache
        raise FcosError(f"The address {path} leads upwards (..): give the address that it stands for.")
    if row.url.startswith(_TABLES):
        near = get_close_matches(path, ADDRESSES, 3, 0.5) or [name for name in ADDRESSES if name.startswith(_TABLES)]
        raise FcosError(f"{path} names no weights that are known here; there are: {', '.join(near)}.")
    try:
        # iopath's cache leaves out the host: what one address gives must not lie where another is looked for.
        host = "" if path in ADDRESSES else re.sub(r"[^\w.-]", "_", urlparse(row.url).netloc)
        own = {"cache_dir": str(Path(get_cache_dir()) / "fcos_d2" / host)} if host and "http" in row.url[:5] else {}
        file = Path(PathManager.get_local_path(row.url, **own))
    except Exception as error:  # whatever the network or the catalog says
        shown = row.url.replace("detectron2://", "https://dl.fbaipublicfiles.com/detectron2/")
        raise FcosError(
            f"The weights {shown} cannot be fetched ({type(error).__name__}): pass "
            "train.init_checkpoint= (MODEL.WEIGHTS= with YAML keys) to train from scratch, or the path of a local file."
        ) from error
    if row.sha256 and not (found := sha256_of(file)).startswith(row.sha256):
        file.unlink()
        raise FcosError(
            f"The weights from {row.url} have the SHA-256 {found[: max(8, len(row.sha256))]}, but {row.sha256} was "
            "published: the file was deleted; try again, or pass the path of a local file."
        )
    return file
