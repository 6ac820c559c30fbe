"""What `fcos detect` is asked to look at: files, folders and addresses -> images."""

from __future__ import annotations

import io
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import FcosError

__all__ = ["Source", "download", "expand", "read_image"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm")

_SCHEMES = ("http", "https")
_CHUNK = 1 << 16


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
    """The images that the words on the command line stand for; a folder is all images in it and below.

    Raises:
        FcosError: a folder has no image.
    """
    return [source for word in words for source in _expand(word)]


def _expand(word: str) -> Iterator[Source]:
    folder = Path(word).expanduser()
    if "://" in word or not folder.is_dir():
        yield Source(word if "://" in word else str(folder))
        return
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise FcosError(f"The folder {word} holds no image ({', '.join(SUFFIXES)}).")
    yield from (Source(str(path)) for path in files)


def read_image(source: Source, limit: int = 64 << 20, timeout: float = 20.0) -> np.ndarray:
    """Read a source as an upright (H, W, 3) uint8 RGB array; see `download` for `limit` and `timeout`.

    Raises:
        FcosError: there is no such image, it cannot be fetched, or it is damaged.
    """
    name = source.where
    data: io.BytesIO | Path = Path(name)
    if source.is_address:
        data = io.BytesIO(download(name, limit, timeout))
    elif not data.exists():
        raise FcosError(f"There is no image {name}.")
    try:
        with Image.open(data) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith(("I", "F")):  # 16 or 32 bit, which `convert` would clip
                return _scaled(np.asarray(upright))
            if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
                upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright.convert("RGBA"))
            return np.asarray(upright.convert("RGB")).copy()
    except UnidentifiedImageError as error:
        raise FcosError(f"{name} is not an image.") from error
    except PermissionError as error:
        raise FcosError(f"{name} cannot be read: {error.strerror}.") from error
    except Exception as error:  # Pillow's plugins raise anything
        raise FcosError(f"{name} cannot be read: {str(error) or type(error).__name__}.") from error


def _scaled(values: np.ndarray) -> np.ndarray:
    """Grey values of any range as (H, W, 3) uint8."""
    values = values.astype(np.float64)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = (0.0, 65535.0) if 255 < values.max() <= 65535 and values.min() >= 0 else (values.min(), values.max())
    if values.min() >= 0 and values.max() <= 255:
        low, high = 0.0, 255.0
    grey = ((values - low) / max(high - low, 1e-12) * 255).round().astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


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
            while chunk := answer.read(_CHUNK):
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
    except TimeoutError as error:
        raise FcosError(f"{address} gives no answer within {timeout:g} s.") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise FcosError(f"{address} gives no answer within {timeout:g} s.") from error
        raise FcosError(
            f"{address} cannot be reached: {getattr(error.reason, 'strerror', None) or error.reason}."
        ) from error
    except Exception as error:  # broken headers, invalid addresses
        raise FcosError(f"{address} cannot be fetched: {str(error) or type(error).__name__}.") from error


def _check_scheme(address: str, asked: str) -> None:
    scheme = address.partition("://")[0].lower()
    if scheme not in _SCHEMES:
        raise FcosError(f"{asked} cannot be fetched: only http:// and https:// are, not {scheme}://.")
