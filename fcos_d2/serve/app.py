"""The addresses of a server: what is asked there, and what is answered."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..visualize import class_color
from ..webpage import inlined
from . import answers, static
from .limits import Refused
from .service import Gone, Service

__all__ = ["make_app"]

logger = logging.getLogger("fcos_d2")

_CLIENT_GONE = 499  # what proxies write down where nobody is left to answer
_PICTURE = {"type": "string", "format": "binary"}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"file": _PICTURE}, "required": ["file"]}
            },
            "application/octet-stream": {"schema": _PICTURE},
            "application/json": {
                "schema": {"type": "object", "properties": {"url": {"type": "string"}}, "required": ["url"]}
            },
        },
    }
}
_SENTENCE = {
    "application/json": {"schema": {"type": "object", "properties": {"error": {"type": "string"}}}},
}
_TOLD = {
    400: "The request holds no picture.",
    403: "The address may not be fetched.",
    408: "The picture came too slowly.",
    413: "Too many bytes or pixels.",
    422: "No picture that can be read, or a wrong parameter.",
    429: "All places are taken; Retry-After says in how many seconds to try again.",
    503: "No answer in time, or no detector.",
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": _SENTENCE} for status, text in _TOLD.items()
}
_ELSEWHERE = {404: "There is nothing at this address: see /docs.", 405: "This address takes another method: see /docs."}
# In the module, since FastAPI looks annotations up there.
_Threshold = Annotated[
    float, Query(ge=0, lt=1, description="Report what has a higher score, of what the server finds.")
]
_Answer = Annotated[
    Literal["json", "picture", "both"],
    Query(description="`json`; `picture`, a JPEG with the boxes; or `both`, JSON with the JPEG as `picture`."),
]


def make_app(service: Service) -> ASGIApp:
    """The application of a service, which is closed when the application ends."""

    @asynccontextmanager
    async def living(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="fcos serve", docs_url=None, redoc_url=None, lifespan=living,
        description="Finds objects in pictures. Errors are `{\"error\": \"a sentence\"}`.",
    )  # fmt: skip
    _say_errors_in_sentences(app)
    _add_detection(app, service)
    _add_state(app, service)
    _add_pages(app)
    return _Watch(app, service)


def _add_detection(app: FastAPI, service: Service) -> None:
    names = service.engine.class_names

    @app.post("/detect", summary="Find the objects in a picture.", openapi_extra=_BODY, responses=_ERRORS)
    async def detect(request: Request, threshold: _Threshold = 0.0, answer: _Answer = "json") -> Response:
        """The picture is the field `file` of a form, the body itself, or, where that is allowed, at `{"url": ...}`.

        Each detection has the class's name and number, a score in 0..1, and box = [left, top, right, bottom] in pixels.
        """
        with service.place():
            request.scope["accepted"] = True
            async with service.picture(request) as (picture, sent):
                found = await service.find(picture, request)
                rows = answers.above(found.boxes, threshold)
                jpeg = b""
                if answer != "json":
                    jpeg = await service.aside(answers.as_jpeg, picture, found.boxes, rows, names)
                height, width = picture.shape[:2]
        for label in found.boxes.classes[rows].tolist():
            service.metrics.found(names[label])
        if answer == "picture":
            return Response(jpeg, media_type="image/jpeg")
        data = {"image": sent.url or sent.name, "width": width, "height": height}
        data |= answers.as_data(found, rows, names)
        return JSONResponse(data if answer == "json" else {**data, "picture": inlined(jpeg)})


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/model", summary="Which detector answers, its classes, and the limits.")
    async def model() -> dict[str, Any]:
        limits = service.limits
        return {
            "model": service.model,
            "engine": service.engine.name,
            "classes": [{"name": name, "color": class_color(i)} for i, name in enumerate(service.engine.class_names)],
            "threshold": service.least,
            "addresses": service.remote is not None,
            "limits": {
                "bytes": limits.bytes,
                "pixels": limits.pixels,
                "queue": limits.queue,
                "seconds": limits.timeout,
            },
        }

    @app.get("/healthz", summary="Whether the process is alive; if not, start it again.")
    async def health() -> JSONResponse:
        alive = service.is_alive
        return JSONResponse({"status": "alive" if alive else "dead"}, 200 if alive else 503)

    @app.get("/readyz", summary="Whether new requests are welcome.")
    async def ready() -> JSONResponse:
        status = "leaving" if service.leaving else "ready" if service.is_alive else "dead"
        return JSONResponse({"status": status}, 200 if status == "ready" else 503)

    @app.get("/metrics", summary="Counts and times, for Prometheus.", response_class=Response)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _add_pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(static.PAGE, headers=static.HEADERS)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(static.reference(app.openapi()), headers=static.HEADERS)


def _say_errors_in_sentences(app: FastAPI) -> None:
    def told(status: int, sentence: str, retry_after: int | None = None) -> JSONResponse:
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return JSONResponse({"error": sentence}, status, headers)

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> JSONResponse:
        return told(error.status, str(error), error.retry_after)

    @app.exception_handler(RequestValidationError)
    async def wrong(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return told(422, f"{first['loc'][-1]} is wrong: {first['msg'].lower()}.")

    @app.exception_handler(HTTPException)
    async def elsewhere(request: Request, error: HTTPException) -> JSONResponse:
        sentence = _ELSEWHERE.get(error.status_code, f"{error.detail}.")
        return JSONResponse({"error": sentence}, error.status_code, error.headers)

    @app.exception_handler(Gone)
    async def gone(request: Request, error: Gone) -> Response:
        return Response(status_code=_CLIENT_GONE)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        return told(500, "The picture could not be looked at; the log of the server says why.")


class _Watch:
    """Counts and times requests to detect, and closes connections when the server leaves."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, left = time.monotonic(), 500, True

        async def read() -> Message:
            nonlocal left
            message = await receive()
            left = left and message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self.service.leaving:
                    await _finish(read, lambda: left, self.service.limits.timeout)
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body") and scope["path"] == "/detect":
                self.service.metrics.request(status, time.monotonic() - began, scope.get("accepted", False))

        try:
            await self.app(scope, read, watched)
        except Exception:  # it has been answered with status 500; uvicorn would close the connection on that
            logger.exception("A request could not be answered.")


async def _finish(read: Receive, is_left: Callable[[], bool], seconds: float) -> None:
    """Read what is left of a body: a connection that is closed on one that was not read loses its answer."""

    async def rest() -> None:
        while is_left():
            await read()

    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(rest(), seconds)
