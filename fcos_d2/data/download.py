"""What is at an http(s) address: its bytes, or only what kind of thing it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import FcosError

__all__ = ["content_type", "download"]


def content_type(address: str, timeout: float) -> str:
    """What a server says an http(s) address is, such as "image/jpeg"; raises as `download` does."""
    with _answer(address, timeout) as answer:
        return answer.headers.get_content_type()


def download(address: str, limit: int, timeout: float) -> bytes:
    """Fetch what is at an address.

    Args:
        address: http or https.
        limit: bytes that are accepted.
        timeout: seconds to wait for an answer; the whole may take three times as long.
    Raises:
        FcosError: another scheme, no answer, a refusal, or too large; one sentence.
    """
    end = time.monotonic() + 3 * timeout
    too_large = FcosError(f"{address} is larger than {limit / (1 << 20):g} MiB, the limit for images (--limit-mb).")
    with _answer(address, timeout) as answer:
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


@contextmanager
def _answer(address: str, timeout: float) -> Iterator[Any]:
    """A server's answer, open for reading; what goes wrong before the block ends is said in a sentence."""
    import urllib.request  # which most commands need not wait for

    _check_scheme(address, address)
    request = urllib.request.Request(address, headers={"User-Agent": "fcos_d2", "Accept": "image/*,*/*;q=0.5"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            _check_scheme(answer.geturl(), address)
            yield answer
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
