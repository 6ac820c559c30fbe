"""A request's body -> the bytes of one picture, or an address; and those bytes -> its pixels. All within limits."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from ..data.images import decode, open_image
from ..errors import FcosError
from .limits import Limits, Refused, Room

__all__ = ["Sent", "decoded", "received"]

# What Pillow may decode. Others are for print, or run programs, as EPS does.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
_SEND = "send it as the field `file` of a form, or as the body itself"


@dataclass(frozen=True)
class Sent:
    """What came: bytes of a picture with the name that the sender gave it, or an address."""

    data: bytes = b""
    name: str | None = None
    url: str = ""


async def received(request: Request, limits: Limits) -> Sent:
    """Read what a request sends.

    Raises:
        Refused: too large, too slow, nothing in it, or not in a form that is understood.
    """
    try:
        return await asyncio.wait_for(_read(request, limits), limits.timeout)
    except asyncio.TimeoutError:
        raise Refused(408, f"The picture did not arrive within {limits.timeout:g} s: send a smaller one.") from None
    except ClientDisconnect:
        raise Refused(400, "The connection broke off before the picture was there.") from None


async def _read(request: Request, limits: Limits) -> Sent:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = _limited(request, limits.bytes)
    if kind == "multipart/form-data":
        return await _of_form(request, body)
    data = b"".join([piece async for piece in body])
    if not data:
        raise Refused(400, f"The request holds no picture: {_SEND}.")
    return _of_json(data) if kind == "application/json" else Sent(data)


async def _limited(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    too_large = Refused(413, f"The request has more than {limit:,} bytes, the limit here: send a smaller picture.")
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said) > limit:
        raise too_large
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > limit:
            raise too_large
        yield piece


async def _of_form(request: Request, body: AsyncGenerator[bytes, None]) -> Sent:
    try:
        form = await MultiPartParser(request.headers, body, max_files=1, max_fields=8, max_part_size=4096).parse()
    except MultiPartException as error:
        raise Refused(400, f"The form cannot be read: {error.message.rstrip('.')}.") from None
    try:
        field = form.get("file")
        if not isinstance(field, UploadFile):
            raise Refused(400, f"The form holds no picture: {_SEND}.")
        data = await field.read()
        if not data:
            raise Refused(400, "The file in the form is empty.")
        return Sent(data, field.filename or None)
    finally:
        await form.close()


def _of_json(data: bytes) -> Sent:
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or set(said) != {"url"} or not isinstance(said["url"], str):
        raise Refused(400, 'JSON must be {"url": "https://host/picture.jpg"}; a picture is sent as it is.')
    return Sent(url=said["url"])


@asynccontextmanager
async def decoded(data: bytes, limits: Limits, room: Room, readers: Executor) -> AsyncIterator[np.ndarray]:
    """The picture in some bytes, (H, W, 3) uint8 RGB, upright; while it is there, it takes its pixels of the room.

    Raises:
        Refused: it is none, damaged, or too large.
    """
    loop = asyncio.get_running_loop()
    pixels = await loop.run_in_executor(readers, _pixels, data, limits.pixels)
    async with room.hold(pixels):
        yield await loop.run_in_executor(readers, _decoded, data)


def _pixels(data: bytes, limit: int) -> int:
    """How many pixels a file says that it has; nothing is decoded."""
    try:
        with open_image(io.BytesIO(data), 1 << 62) as image:
            kind, (width, height) = image.format, image.size
    except Exception:  # Pillow's plugins raise anything
        raise Refused(422, "This is not a picture that can be read: send JPEG, PNG, WebP, GIF, BMP or TIFF.") from None
    if kind not in _FORMATS:
        raise Refused(422, f"{kind} is not read: send JPEG, PNG, WebP, GIF, BMP or TIFF.")
    if width * height > limit:
        raise Refused(413, f"The picture has {width}x{height} pixels, more than {limit:,}, the limit here: reduce it.")
    return width * height


def _decoded(data: bytes) -> np.ndarray:
    try:
        return decode(io.BytesIO(data), "The picture", 1 << 62)
    except FcosError as error:
        raise Refused(422, str(error)) from None
