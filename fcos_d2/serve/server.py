"""A socket, a process that answers at it, and how it ends: with an answer for each request that it has taken."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from ..errors import FcosError
from .app import make_app
from .service import Service

__all__ = ["Server", "bound", "url_of"]

logger = logging.getLogger("fcos_d2")

_LINGER = 1.0  # seconds in which connections that are open get a last answer, and are told that it is the last
_CONNECTIONS = 1024


def bound(host: str, port: int) -> socket.socket:
    """A socket at an address, on which nobody listens yet; port 0 is any that is free.

    Raises:
        FcosError: the address is taken, or none of this machine.
    """
    try:
        family, kind, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        found = socket.socket(family, kind)
    except OSError as error:
        raise FcosError(f"--host {host} is no address of this machine: {error.strerror or error}.") from error
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a server that was ended may come back at once
        found.bind(where)
    except OSError as error:
        found.close()
        raise FcosError(
            f"{host}:{port} cannot be listened at ({(error.strerror or str(error)).lower()}): choose another --port or "
            "--host."
        ) from error
    return found


def url_of(listener: socket.socket) -> str:
    """Where a browser on this machine finds the server."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{port}"


class Server(uvicorn.Server):
    """Serves until Ctrl-C or SIGTERM: then it takes no more requests, answers those that it has, and ends.

    A second signal ends it at once.

    Args:
        service: what answers.
        begun: called when somebody listens.
    """

    def __init__(self, service: Service, begun: Callable[[], None] = lambda: None) -> None:
        self.service, self.begun = service, begun
        config = uvicorn.Config(
            make_app(service),
            log_config=None,
            access_log=False,
            limit_concurrency=_CONNECTIONS,
            lifespan="on",
            server_header=False,
            timeout_graceful_shutdown=math.ceil(3 * service.limits.timeout),  # for clients that do not take answers
        )
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """By uvicorn: begin to listen."""
        await super().startup(sockets)
        self.begun()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Of a signal; uvicorn calls it."""
        if self.service.leaving:
            self.should_exit = self.force_exit = True
        self.leave()

    def leave(self) -> None:
        """Ask it to end; may be called from any thread."""
        self.service.leaving = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second, by uvicorn: whether to end."""
        if self.service.leaving and not self.should_exit:
            logger.info("Ending: what has come is answered.")
            await asyncio.sleep(_LINGER)
            self.should_exit = True
        return await super().on_tick(counter)
