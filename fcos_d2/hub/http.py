"""One file from one address, in pieces if need be: what is there of an interrupted download is not fetched again.

requests and urllib3 do the transport: redirects, proxies, certificates, retries with back-off. Resuming is ours, as
neither pooch nor huggingface_hub, torch.hub or iopath goes on with what an earlier process has left.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, NameResolutionError
from urllib3.util import Retry

from ..files import os_error, size_text

__all__ = ["Fetched", "NoRoom", "NotFetched", "copy_file", "download"]

Progress = Callable[[int, int], None]  # bytes that are there, bytes in all; 0 if nobody says

_CONNECT, _READ, _PAUSE = 10.0, 30.0, 0.2  # seconds
_TRIES = 5  # attempts in a row that bring nothing
_PIECE = 1 << 16
_BUSY = (429, 500, 502, 503, 504)


class NotFetched(Exception):
    """An address does not give the file; the text is the reason, the second half of a sentence."""


class NoRoom(Exception):
    """The file cannot be written; the text is the reason, a whole sentence."""


class _BrokeOff(Exception):
    """An answer ended before the file did."""


@dataclass(frozen=True)
class Fetched:
    """What the server said of a file.

    Attributes:
        url: that was asked.
        sha256: digest of the content, where the server tells it (Hugging Face does).
        commit: of its repository, where the server tells it.
    """

    url: str
    sha256: str = ""
    commit: str = ""


def download(
    url: str, part: Path, *, size: int = 0, trusted: bool = False, progress: Progress | None = None
) -> Fetched:
    """Fetch a file into `part`, which stays when the download breaks off; another call goes on where it ended.

    Args:
        url: http or https.
        part: file to write; its folder is there. What the server calls its content is kept beside it.
        size: bytes that it must have; 0 if unknown.
        trusted: the digest of the whole is known, so a part may be completed even if the server names no version of it.
        progress: told how far it is.
    Raises:
        NotFetched: the server does not give it.
        NoRoom: the disk does not take it.
    """
    reading = float(os.environ.get("FCOS_D2_TIMEOUT") or _READ)
    failures, answered = 0, False
    with _session() as session:
        while True:
            before = _length(part)
            try:
                return _attempt(session, url, part, size, trusted, progress, (min(_CONNECT, reading), reading))
            except (requests.RequestException, HTTPError, _BrokeOff) as error:
                came = _length(part) > before
                failures = 1 if came else failures + 1
                answered |= came or isinstance(error, _BrokeOff)
                if failures >= _TRIES or not answered:  # urllib3 has tried to connect more than once
                    raise NotFetched(_why(error, reading)) from error
                time.sleep(_PAUSE * 2 ** (failures - 1))


def _session() -> requests.Session:
    session = requests.Session()
    session.max_redirects = 10
    retry = Retry(
        total=4, connect=2, read=2, backoff_factor=0.3, backoff_max=20, status_forcelist=_BUSY,
        allowed_methods={"GET"}, raise_on_status=False, respect_retry_after_header=False,
    )  # fmt: skip
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    # As it lies there, not packed for the way: ranges and lengths count those bytes.
    session.headers.update({"User-Agent": "fcos_d2", "Accept": "*/*", "Accept-Encoding": "identity"})
    return session


def _attempt(
    session: requests.Session, url: str, part: Path, size: int, trusted: bool, progress: Progress | None,
    timeout: tuple[float, float],
) -> Fetched:  # fmt: skip
    note = part.with_name(f"{part.name}.json")
    have, version = _length(part), _version(note, url)
    headers = {}
    if have and (version or trusted):
        headers = {"Range": f"bytes={have}-", **({"If-Range": version} if version else {})}
    with session.get(url, headers=headers, stream=True, timeout=timeout) as answer:
        _check_way(url, answer)
        fetched = Fetched(url, _digest_of(answer), _header(answer, "X-Repo-Commit"))
        begin, total = _range(answer, have if headers else 0)
        if begin is None:
            if total == have:
                return fetched  # it was there already
            part.unlink(missing_ok=True)
            raise _BrokeOff("the part that was there does not belong to it")
        if size and total and size != total:
            raise NotFetched(f"it offers {total:,} bytes where {size:,} were published")
        _check_room(part, total - begin)
        if begin == 0:
            _write_note(note, url, answer)
        _write(answer, part, begin, total, progress)
    return fetched


def _check_way(url: str, answer: requests.Response) -> None:
    """Raise NotFetched if an answer is no file, or came by a way that is not to be trusted."""
    way = [step.url for step in (*answer.history, answer)]
    if url.startswith("https://") and any(not step.startswith("https://") for step in way):
        raise NotFetched("it leads to an address without encryption")
    if answer.status_code == 416:
        return
    if answer.status_code not in (200, 206):
        raise NotFetched(f"the server answers {answer.status_code} {answer.reason or ''}".rstrip())
    if answer.headers.get("Content-Type", "").partition(";")[0].strip() in ("text/html", "application/xhtml+xml"):
        raise NotFetched("it is a web page, not a file")


def _range(answer: requests.Response, have: int) -> tuple[int | None, int]:
    """Where the answer begins in the file, `None` if the server has nothing after `have`; and the length of the file.

    The length is 0 if the server does not say it.
    """
    said = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", answer.headers.get("Content-Range", ""))
    length = int(answer.headers.get("Content-Length") or 0)
    whole = int(said[2]) if said and said[2] != "*" else 0
    if answer.status_code == 416:
        return None, whole or -1
    if answer.status_code == 206 and said and said[1] and int(said[1]) == have:
        return have, whole or (have + length if length else 0)
    if answer.status_code == 206:
        raise NotFetched("the server sends another piece of the file than it was asked for")
    return 0, 0 if "Content-Encoding" in answer.headers else length


def _write(answer: requests.Response, part: Path, begin: int, total: int, progress: Progress | None) -> None:
    done = begin
    with _opened(part, begin > 0) as file:
        for piece in answer.iter_content(_PIECE):
            try:
                file.write(piece)
            except OSError as error:
                raise _no_room(part, error) from error
            done += len(piece)
            if progress is not None:
                progress(done, total)
    if total and done < total:
        raise _BrokeOff("the connection broke off")
    if total > 0 and done > total:
        part.unlink()
        raise NotFetched(f"it sends more than the {total:,} bytes that it has announced")


def _opened(part: Path, goes_on: bool = False) -> Any:
    """The part, unbuffered: what has come is in the file, whatever happens to this process."""
    try:
        if not goes_on:
            part.unlink(missing_ok=True)
        return part.open("ab", buffering=0)
    except OSError as error:
        raise _no_room(part, error) from error


def _check_room(part: Path, wanted: int) -> None:
    with suppress(OSError):
        free = shutil.disk_usage(part.parent).free
        if wanted > free:
            raise NoRoom(
                f"{part.parent} has {size_text(free)} free and {size_text(wanted)} are to come: make room, or set "
                "FCOS_D2_CACHE to a folder on another disk."
            )


def _no_room(part: Path, error: OSError) -> NoRoom:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    kept = "; what has come is kept, and the next try goes on from there" if _length(part) else ""
    remedy = "make room, or set" if full else "set"
    return NoRoom(
        f"{part.parent} cannot take the download ({error.strerror}): {remedy} FCOS_D2_CACHE to a folder "
        f"{'on another disk' if full else 'that can be written'}{kept}."
    )


def copy_file(source: Path, part: Path) -> None:
    """Copy a file to `part`; raises NotFetched or NoRoom as `download` does."""
    try:
        file = source.open("rb")
    except OSError as error:
        raise NotFetched(f"{error.strerror}") from error
    with file, _opened(part) as target:
        try:
            shutil.copyfileobj(file, target, 1 << 20)
        except OSError as error:
            raise _no_room(part, error) from error


# What servers say of a file


def _header(answer: requests.Response, name: str) -> str:
    """A header of the answer, or of one that led to it."""
    return next((value for step in (answer, *answer.history) if (value := step.headers.get(name))), "")


def _digest_of(answer: requests.Response) -> str:
    tag = _header(answer, "X-Linked-ETag").strip('"').lower()
    return tag if re.fullmatch("[0-9a-f]{64}", tag) else ""


def _write_note(note: Path, url: str, answer: requests.Response) -> None:
    """Keep what tells whether the server still has the same file when the download goes on."""
    tag = answer.headers.get("ETag", "")
    version = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified", "")
    try:
        note.write_text(json.dumps({"url": url, "version": version}), encoding="utf-8")
    except OSError as error:
        raise _no_room(note, error) from error


def _version(note: Path, url: str) -> str:
    with suppress(OSError, ValueError, AttributeError):
        said = json.loads(note.read_text(encoding="utf-8"))
        return str(said.get("version", "")) if said.get("url") == url else ""
    return ""


def _length(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _why(error: BaseException, reading: float) -> str:
    """The reason in words of the user."""
    causes: list[BaseException] = []
    while error is not None and error not in causes:
        causes.append(error)
        inner = getattr(error, "reason", None)
        error = inner if isinstance(inner, BaseException) else (error.__cause__ or error.__context__)  # type: ignore[assignment]
    for kind, text in (
        (requests.exceptions.SSLError, "its certificate is not accepted"),
        (requests.exceptions.ProxyError, "the proxy cannot be reached"),
        (NameResolutionError, "its name cannot be looked up: there is no network, or no such host"),
        (requests.exceptions.Timeout, f"no answer within {reading:g} s"),
        (requests.exceptions.TooManyRedirects, "it leads from one address to the next without end"),
        (requests.exceptions.InvalidSchema, "it leads to an address that is neither http nor https"),
        (requests.exceptions.InvalidURL, "it is no valid address"),
        (requests.exceptions.ChunkedEncodingError, "the connection broke off again and again"),
    ):
        if any(isinstance(cause, kind) for cause in causes):
            return text
    if any("timed out" in str(cause).lower() for cause in causes):
        return f"no answer within {reading:g} s"
    if isinstance(causes[0], _BrokeOff):
        return f"{causes[0]} again and again"
    known = next((found for cause in causes if (found := os_error(cause)) is not None and found.strerror), None)
    return known.strerror.lower() if known is not None and known.strerror else "the server cannot be reached"
