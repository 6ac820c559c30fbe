"""Pictures at addresses that strangers name: fetched from the open internet alone, never from the inside.

A host's name is looked up once for each step of the way, every address that it has must be public, and the connection
goes to the address that was checked: an answer of the name service that changes in between (DNS rebinding) does not
matter. Redirects are followed here, step by step, under the same rules. Proxies of the environment are not used.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, urljoin, urlsplit

import requests
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from .limits import Refused

__all__ = ["Remote", "is_public"]

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_PORTS = {"http": 80, "https": 443}
_STEPS = 5  # redirects
_LONGEST = 2048  # letters of an address
_PIECE = 1 << 16
_IN_PATHS = "%/?:@!$&'()*+,;=-._~[]|"  # what stays as it is written
_UNICAST = ipaddress.ip_network("2000::/3")  # where public IPv6 addresses are
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # IPv4 in IPv6, RFC 6052
# IETF's own, of which some clouds make use, and Azure's service for its machines: not all versions of Python know them.
_INNER = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "168.63.129.16/32")))


def is_public(address: IPAddress) -> bool:
    """Whether an address is one of the open internet, that of an IPv4 host in an IPv6 address included."""
    if isinstance(address, ipaddress.IPv4Address):
        inner = any(address in network for network in _INNER)
        return address.is_global and not (address.is_multicast or address.is_reserved or inner)
    if address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    if address in _TRANSLATED:
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    within = [*(address.teredo or ()), *([address.sixtofour] if address.sixtofour else [])]
    return address in _UNICAST and address.is_global and all(map(is_public, within))


def _looked_up(host: str, port: int) -> list[str]:
    """All addresses that a name has now."""
    return list(dict.fromkeys(str(row[4][0]) for row in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))


def _inward() -> Refused:
    """One sentence for all that is inside, so that it tells nobody what there is."""
    return Refused(
        403, "The address is not fetched: only http and https at ports 80 and 443 of public hosts are, nothing inside "
        "this network. Send the picture itself."
    )  # fmt: skip


@dataclass(frozen=True)
class Remote:
    """Fetches pictures.

    Attributes:
        limit: bytes of a picture.
        timeout: seconds for the whole way.
        inside: "host:port" of the inside that may be reached nevertheless.
        ports: of all other hosts.
        look_up: host and port -> addresses.
        is_open: whether an address may be reached.
    """

    limit: int
    timeout: float = 20.0
    inside: frozenset[str] = frozenset()
    ports: frozenset[int] = frozenset(_PORTS.values())
    look_up: Callable[[str, int], Sequence[str]] = _looked_up
    is_open: Callable[[IPAddress], bool] = is_public

    def get(self, url: str) -> bytes:
        """The bytes at an http(s) address.

        Raises:
            Refused: it is none, leads to the inside, gives nothing, too much, or is too slow.
        """
        end = time.monotonic() + self.timeout
        for _ in range(_STEPS + 1):
            found = self._step(url, end)
            if isinstance(found, bytes):
                return found
            url = urljoin(url, found)
        raise Refused(422, f"The address leads on more than {_STEPS} times: give the address of the picture itself.")

    def _step(self, url: str, end: float) -> bytes | str:
        """What is at an address, or the address that it leads to."""
        parts = _parsed(url)
        host, port = str(parts.hostname), parts.port or _PORTS[parts.scheme]
        path = quote(f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}", safe=_IN_PATHS)
        name = f"[{host}]" if ":" in host else host
        headers = {
            "Host": name if parts.port is None else f"{name}:{parts.port}", "User-Agent": "fcos_d2",
            "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity",
        }  # fmt: skip
        connection = self._connection(parts.scheme, host, port, end)
        with closing(connection), _closed_at(end, connection):
            try:
                connection.connect()
                self._require_other_machine(connection, f"{host}:{port}")
                connection.request("GET", path, headers=headers, preload_content=False)
                return self._read(connection.getresponse(), end)
            except Refused:
                raise
            except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as error:
                slow = time.monotonic() >= end
                why = f"takes longer than {self.timeout:g} s" if slow else "gives no answer"
                raise Refused(422, f"The picture's address {why}: is it reachable from here?") from error

    def _connection(self, scheme: str, host: str, port: int, end: float) -> HTTPConnection:
        """To the checked address; a certificate must be that of the name."""
        address, left = self._address(host, port), max(end - time.monotonic(), 0.001)
        if scheme == "http":
            return HTTPConnection(address, port, timeout=left)
        return HTTPSConnection(
            address, port, timeout=left, server_hostname=host, assert_hostname=host, ca_certs=requests.certs.where()
        )

    def _require_other_machine(self, connection: HTTPConnection, name: str) -> None:
        """A machine's own public address leads to itself, past what guards it."""
        ends = [connection.sock.getsockname()[0], connection.sock.getpeername()[0]] if connection.sock else []
        if len(set(ends)) < 2 and name.lower() not in self.inside:
            raise _inward()

    def _address(self, host: str, port: int) -> str:
        """The checked address of a host; that a name of the inside exists is not told."""
        try:
            found = self.look_up(host, port)
            addresses = [ipaddress.ip_address(text.partition("%")[0]) for text in found]
        except (OSError, ValueError):  # UnicodeError among them: a name that is none
            addresses = []
        trusted = f"{host}:{port}".lower() in self.inside
        if addresses and (trusted or (port in self.ports and all(map(self.is_open, addresses)))):
            return str(min(addresses, key=lambda address: address.version))  # IPv4 is there more often
        raise _inward()

    def _read(self, answer: urllib3.BaseHTTPResponse, end: float) -> bytes | str:
        if answer.status in (301, 302, 303, 307, 308) and (onward := answer.headers.get("Location")):
            return onward
        if answer.status != 200:
            raise Refused(422, f"The picture's address answers with status {answer.status}.")
        data = bytearray()
        while piece := answer.read1(_PIECE):
            data += piece
            if len(data) > self.limit:
                raise Refused(413, f"The picture at the address has more than {self.limit:,} bytes, the limit here.")
            if time.monotonic() > end:
                raise Refused(422, f"The picture's address takes longer than {self.timeout:g} s.")
        return bytes(data)


def _parsed(url: str) -> SplitResult:
    """The parts of an address that can be fetched; its host in ASCII."""
    try:
        url.encode()  # JSON can hold half a character
        parts = urlsplit(url)
        host = parts.hostname or ""
        if not host.isascii():
            parts = SplitResult(
                parts.scheme, parts.netloc.lower().replace(host, host.encode("idna").decode()), *parts[2:]
            )
        good = parts.scheme in _PORTS and bool(host) and parts.username is None and parts.port != 0
    except ValueError:
        good = False
    if not good or len(url) > _LONGEST or any(c <= " " or c == "\\" or c == "\x7f" for c in url):
        raise Refused(422, "url must be an address such as https://host/picture.jpg: http or https, without a login.")
    return parts


@contextmanager
def _closed_at(end: float, connection: HTTPConnection) -> Iterator[None]:
    """Break a connection off at a time: a host that sends a letter now and then never makes it wait too long."""

    def close() -> None:
        with suppress(OSError, AttributeError):
            connection.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(end - time.monotonic(), 0), close)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
