"""Files, folders and addresses -> images."""

from __future__ import annotations

import io
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import FcosError
from ..files import IMAGE_SUFFIXES
from .images import decode, read_image

__all__ = ["Source", "download", "expand", "read"]


@dataclass(frozen=True)
class Source:
    """One image to read: a file or an address."""

    where: str

    @property
    def is_address(self) -> bool:
        return "://" in self.where

    @property
    def stem(self) -> str:
        """A name for what is made of it."""
        path = urllib.parse.urlparse(self.where).path if self.is_address else self.where
        kept = "".join(c if c.isalnum() or c in "-_. " else "_" for c in Path(urllib.parse.unquote(path)).stem)
        return kept[:80].strip() or "image"


def expand(words: Sequence[str]) -> list[Source]:
    """The images that the words on the command line stand for; a folder is all its images but hidden ones.

    Raises:
        FcosError: a folder has no image.
    """
    found = []
    for word in words:
        folder = Path(word).expanduser()
        if "://" in word or not folder.is_dir():
            found.append(word if "://" in word else str(folder))
            continue
        files = sorted(path for path in folder.rglob("*") if _is_image(path, path.relative_to(folder).parts))
        if not files:
            raise FcosError(f"The folder {word} holds no image ({', '.join(IMAGE_SUFFIXES)}).")
        found += map(str, files)
    return [Source(where) for where in found]


def _is_image(path: Path, parts: Sequence[str]) -> bool:
    """Whether a file is an image by its name; hidden files and what a Mac adds to archives only look like images."""
    left = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not left and path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def read(source: Source, limit: int, timeout: float) -> np.ndarray:
    """Read a source as an upright (H, W, 3) RGB array in 0..255; see `download` for `limit` and `timeout`.

    Raises:
        FcosError: there is no such image, it cannot be fetched, or it is damaged.
    """
    if not source.is_address:
        return read_image(source.where)
    return decode(io.BytesIO(download(source.where, limit, timeout)), source.where)


def download(address: str, limit: int, timeout: float) -> bytes:
    """Fetch what is at an address.

    Args:
        address: http or https.
        limit: bytes that are accepted.
        timeout: seconds to wait for an answer; the whole may take three times as long.
    Raises:
        FcosError: another scheme, no answer, a refusal, or too large; one sentence.
    """
    _check_scheme(address, address)
    request = urllib.request.Request(address, headers={"User-Agent": "fcos_d2", "Accept": "image/*,*/*;q=0.5"})
    end = time.monotonic() + 3 * timeout
    too_large = FcosError(f"{address} is larger than {limit / (1 << 20):g} MiB, the limit for images (--limit-mb).")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            _check_scheme(answer.geturl(), address)
            if answer.headers.get_content_type() == "text/html":
                raise FcosError(f"{address} is a web page, not an image: give the address of the image itself.")
            if int(answer.headers.get("Content-Length") or 0) > limit:
                raise too_large
            data = bytearray()
            while chunk := answer.read(1 << 16):
                data += chunk
                if len(data) > limit:
                    raise too_large
                if time.monotonic() > end:
                    raise FcosError(f"{address} takes longer than {3 * timeout:g} s to download.")
            return bytes(data)
    except FcosError:
        raise
    except urllib.error.HTTPError as error:
        raise FcosError(f"{address} cannot be fetched: the server answers {error.code} {error.reason}.") from error
    except Exception as error:  # broken headers, invalid addresses
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise FcosError(f"{address} gives no answer within {timeout:g} s.") from error
        how = "reached" if isinstance(error, urllib.error.URLError) else "fetched"
        why = getattr(reason, "strerror", None) or str(reason) or type(error).__name__
        raise FcosError(f"{address} cannot be {how}: {why}.") from error


def _check_scheme(address: str, asked: str) -> None:
    scheme = address.partition("://")[0].lower()
    if scheme not in ("http", "https"):
        raise FcosError(f"{asked} cannot be fetched: only http:// and https:// are, not {scheme}://.")
