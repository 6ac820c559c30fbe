"""`obtain`: a published file, from the cache or from its addresses, checked before anything reads it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path

from .. import zoo
from ..errors import FcosError
from ..files import sha256_of, size_text
from ..paths import is_address
from ..zoo.addresses import ADDRESSES, Address
from ..zoo.checkpoints import near
from . import http, kept
from .telling import progress, tell

__all__ = ["file_of", "is_offline", "obtain", "require", "row_of"]

_HUGGING_FACE = "https://huggingface.co"
_YES = ("1", "true", "yes", "on")


def is_offline(url: str = "") -> bool:
    """Whether the user forbids the network: FCOS_D2_OFFLINE (`--offline`), or HF_HUB_OFFLINE for Hugging Face."""
    names = ["FCOS_D2_OFFLINE", *(["HF_HUB_OFFLINE"] if url.startswith(_HUGGING_FACE) else [])]
    return any(os.environ.get(name, "").lower() in _YES for name in names)


def row_of(name: str) -> Address | None:
    """The row of a variant, of a name in the table of addresses, or of an http(s) address; `None` for other words."""
    if name in ADDRESSES:
        return ADDRESSES[name]
    if is_address(name):
        return Address(name) if name.lower().startswith(("http://", "https://")) else None
    return zoo.published(name)


def require(name: str) -> Address:
    """The row of a variant whose weights can be had, as far as that can be told without asking anybody.

    Raises:
        FcosError: there is no such variant, nobody has published its weights, no program can fetch them, or they are
            not there and the network is forbidden; the message names what else there is.
    """
    variant = zoo.find(name)
    row = zoo.published(name)
    instead = f"weights that can be fetched: {', '.join(near(variant))}; or pass --weights FILE"
    if row is None:
        raise FcosError(f"Nobody has published weights of {variant.full_name}; {instead}.")
    file = file_of(row)
    if file.is_file() or kept.found_elsewhere(row) or os.environ.get("FCOS_D2_MIRROR"):
        return row
    if row.is_dead:
        raise FcosError(
            f"The weights of {variant.full_name} cannot be fetched by a program ({row.url}: {row.reason}): fetch them "
            f"by hand and put them at {file}, or take {instead}."
        )
    if all(map(is_offline, row.urls)):
        raise _not_here(row, file, f"The weights of {variant.full_name}", name)
    return row


def obtain(row: Address, name: str = "") -> Path:
    """The checked file of a row: in the cache, in PyTorch's or iopath's, or fetched; whole or not at all.

    Args:
        row: of a published file, or of an address.
        name: of the variant, for messages; empty for anything else.
    Raises:
        FcosError: it cannot be fetched, its bytes are others than published, or the disk does not take it.
    """
    title = f"The weights of {name} ({row.url})" if name else f"The weights {row.url}"
    file = file_of(row)
    if kept.is_whole(file, row.sha256):
        if not kept.read_record(file):
            kept.write_record(file, url=row.url, date=str(date.today()))
        return file
    elsewhere = kept.found_elsewhere(row)
    if elsewhere and elsewhere[1]:
        return elsewhere[0]
    with kept.lock(file):
        if kept.is_whole(file, row.sha256):  # another process has fetched it meanwhile
            return file
        if file.is_file():
            tell(f"{file} is damaged; it is fetched anew.")
        if elsewhere:
            http.copy_file(elsewhere[0], part := _part(file))
            _keep(part, file, row, http.Fetched(row.url))
            return file
        sources = list(_sources(row))
        if not sources:
            raise _not_here(row, file, title, name)
        _announce(row, name, sources[0], file)
        return _first(sources, row, file, title, name)


def file_of(row: Address) -> Path:
    """Where the cache has a published file, or will have it."""
    place = kept.place_of(row)
    return kept.folder_of(place) / place


def _part(file: Path) -> Path:
    return file.with_name(f"{file.name}.part")


def _sources(row: Address) -> Iterator[str | Path]:
    """Where to look for a file, in this order: addresses, or files in a folder."""
    if (mirror := os.environ.get("FCOS_D2_MIRROR")) and kept.place_of(row).parts[0] != "addresses":
        place = kept.place_of(row).as_posix()
        names = [*([row.file] if _has_own_name(row) else []), place]
        if "://" in mirror and not mirror.startswith("file://"):
            names = [] if is_offline() else names
            yield from (f"{mirror.rstrip('/')}/{name}" for name in names)
        else:
            yield from (Path(mirror.removeprefix("file://")).expanduser() / name for name in names)
        return
    for url in row.urls:
        if not is_offline(url):
            endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/")
            yield url.replace(_HUGGING_FACE, endpoint, 1) if endpoint and url.startswith(_HUGGING_FACE) else url


def _has_own_name(row: Address) -> bool:
    """Whether no other published file has its name; R-50.pkl, for one, means two."""
    every = [*zoo.DETECTORS.values(), *ADDRESSES.values()]
    return len({other.url for other in every if other.file == row.file}) == 1


def _announce(row: Address, name: str, source: str | Path, file: Path) -> None:
    size = f" ({'' if row.exact else 'about '}{size_text(row.size)})" if row.size else ""
    tell(f"Fetching {f'the weights of {name}' if name else row.file}{size} from {source} to {file.parent}")
    if row.terms.restricted:
        tell(f"Their licence: {row.terms.says} ({row.terms.source}).")
    elif name:
        tell(f"Their licence: {row.terms}.")


def _first(sources: list[str | Path], row: Address, file: Path, title: str, name: str) -> Path:
    """The file from the first source that gives it."""
    reasons = []
    for source in sources:
        try:
            return _from(source, row, file)
        except http.NotFetched as error:
            reasons.append(f"{source}: {error}")
        except http.NoRoom as error:
            raise FcosError(str(error)) from error
    reason = reasons[0].partition(": ")[2] if reasons[0].startswith(f"{row.url}: ") else reasons[0]
    reason = "; ".join([reason, *reasons[1:]])
    raise FcosError(f"{title} cannot be fetched ({reason}): {_instead(file, name)}.")


def _from(source: str | Path, row: Address, file: Path) -> Path:
    """Fetch, check and keep the file; a part of an earlier try that has become wrong is given up once."""
    part, record, wrong = _part(file), kept.read_record(file), ""
    expected = [digest for digest in (row.sha256, record.get("sha256", "")) if digest]
    for again in (False, True):
        was_there = part.is_file()
        if isinstance(source, Path):
            http.copy_file(source, part)
            fetched = http.Fetched(str(source))
        else:
            with progress(row.file) as update:
                fetched = http.download(
                    source, part, size=row.size if row.exact else 0, trusted=bool(row.sha256), progress=update
                )
        found = sha256_of(part)
        wrong = next((d for d in [fetched.sha256, *expected] if d and not found.startswith(d)), "")
        if not wrong:
            return _keep(part, file, row, fetched)
        _forget(part)
        if again or not was_there or isinstance(source, Path):
            break
    shown = found[: max(8, len(wrong))]
    if wrong == record.get("sha256") and wrong != row.sha256:
        since = record.get("date", "the first time")
        raise http.NotFetched(
            f"it has the SHA-256 {shown}, but had {wrong} on {since}; delete {file.name}.json there if that is right"
        )
    raise http.NotFetched(f"it has the SHA-256 {shown}, but {wrong} was published")


def _keep(part: Path, file: Path, row: Address, fetched: http.Fetched) -> Path:
    """Give a checked file its name, with what is known of it beside it."""
    facts = {"url": fetched.url, "commit": fetched.commit, "licence": row.terms.name, "date": str(date.today())}
    with part.open("rb") as written:
        os.fsync(written.fileno())
    os.replace(part, file)
    kept.write_record(file, **{key: value for key, value in facts.items() if value})
    _forget(part)
    return file


def _forget(part: Path) -> None:
    for path in (part, part.with_name(f"{part.name}.json")):
        with suppress(OSError):
            path.unlink()


# Sentences


def _not_here(row: Address, file: Path, title: str, name: str) -> FcosError:
    why = "no program can fetch them" if row.is_dead else "--offline (FCOS_D2_OFFLINE, HF_HUB_OFFLINE) forbids to fetch"
    size = f", {size_text(row.size)}" if row.size else ""
    there = "" if row.url in title else f" ({row.url}{size})"
    command = f"run `fcos zoo fetch {name}` where there is a network, or " if name and not row.is_dead else ""
    return FcosError(f"{title}{there} are not in the cache, and {why}: {command}{_instead(file, name)}.")


def _instead(file: Path, name: str) -> str:
    """What to do without the network."""
    if not name:
        return (
            f"put the file at {file}, or pass train.init_checkpoint= (MODEL.WEIGHTS= with YAML keys) to train from "
            "scratch, or the path of a local file"
        )
    return f"put the file at {file}, let FCOS_D2_MIRROR name a folder or an address that has it, or pass --weights FILE"
