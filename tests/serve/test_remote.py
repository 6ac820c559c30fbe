"""Addresses that requests name: what is public is fetched, nothing of the inside can be reached, by whatever way."""

from __future__ import annotations

import ipaddress
import json
import threading
from collections.abc import Iterator

import httpx
import pytest
from publisher import Publisher, publisher
from served import Held, picture, running, until

from fcos_d2.serve.limits import Limits, Refused
from fcos_d2.serve.remote import Remote, is_public
from fcos_d2.serve.service import Service

SECRET = picture(99, 9)

INSIDE = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "100.100.100.200", "192.0.0.192", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1",
    "168.63.129.16", "::1", "::", "fe80::1", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1",
    "::ffff:10.0.0.1", "::7f00:1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::1",
    "2002:a00:1::1", "2001:db8::1", "2001:0:7f00:1::1", "100::1",
]  # fmt: skip
OUTSIDE = ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


def test_what_is_public() -> None:
    assert [text for text in INSIDE if is_public(ipaddress.ip_address(text))] == []
    assert [text for text in OUTSIDE if not is_public(ipaddress.ip_address(text))] == []


@pytest.fixture
def inner() -> Iterator[Publisher]:
    """A server of the inside that counts who comes."""
    with publisher() as server:
        server.serve("secret.png", SECRET, kind="image/png")
        yield server


def test_no_address_leads_inside(inner: Publisher) -> None:
    """Asked over HTTP, as a stranger would: a sentence that is the same whether there is something or not."""
    port = inner.base.rpartition(":")[2]
    hosts = [
        "127.0.0.1", "localhost", "127.1", "0x7f.1", "2130706433", "0177.0.0.1", "127.0.0.1.", "[::1]",
        "[::ffff:127.0.0.1]", "0", "no-such-host.invalid", "LOCALHOST", "①②⑦.⓪.⓪.①",
    ]  # fmt: skip
    others = [
        "file:///etc/passwd", "FILE:///etc/passwd", "/etc/passwd", "ftp://127.0.0.1/a", "gopher://127.0.0.1/_x",
        "data:,x",        "http:///etc/passwd", "http://", "//127.0.0.1/a", f"http://a@127.0.0.1:{port}/", f"http://127.0.0.1:{port}\\@b.c/",
        f"http://127.0.0.1:{port}/\r\nHost: x", "http://127.0.0.1:99999/", "http://[::1", "jar:http://a!/b", "",
        "http://" + "a" * 3000, "http://\ud800.org/", "http://a.org/\ud800",
    ]  # fmt: skip
    with running(Service(Held(held=False), remote=Remote(10**6, 20))) as client:

        def ask(where: str) -> httpx.Response:
            return client.post(
                "/detect", content=json.dumps({"url": where}), headers={"content-type": "application/json"}
            )

        said = set()
        for host in hosts:
            for where in (f"http://{host}:{port}/secret.png", f"https://{host}/"):
                answer = ask(where)
                assert answer.status_code in (403, 422), (where, answer.text)
                said.add(answer.json()["error"])
        assert len([text for text in said if text.startswith("The address is not fetched")]) == 1 and len(said) <= 2
        for where in others:
            answer = ask(where)
            assert 400 <= answer.status_code < 500 and answer.json()["error"].endswith("."), (where, answer.text)
        assert client.get("/model").json()["addresses"] is True
    assert inner.requests == []


def test_a_host_of_the_inside_that_is_allowed(inner: Publisher) -> None:
    """That one, at that port; redirects from there lead no further inside."""
    host = inner.base.partition("//")[2]
    inner.serve("words.html", b"<html>", kind="text/html")
    inner.serve("large.png", bytes(5000))
    inner.serve("away", location="/secret.png")
    inner.serve("round", location="/round")
    inner.serve("gone", status=404)
    inner.serve("broken", bytes(900), stop_after=10)
    with publisher() as hidden, running(Service(Held(False), remote=Remote(4000, 20, frozenset({host})))) as client:
        hidden.serve("secret.png", SECRET)
        for name in ("file:///etc/passwd", f"{hidden.base}/secret.png", "http://[::1]/", "//169.254.169.254/latest"):
            inner.serve("onward", location=name)
            answer = client.post("/detect", json={"url": f"{inner.base}/onward"})
            assert answer.status_code in (403, 422), (name, answer.text)
        assert hidden.requests == []
        for name, status, words in (
            ("secret.png", 200, ""), ("away", 200, ""), ("words.html", 422, "not a picture"), ("gone", 422, "404"),
            ("large.png", 413, "4,000 bytes"), ("round", 422, "more than 5 times"), ("none", 422, "404"),
            ("broken", 422, "gives no answer"),
        ):  # fmt: skip
            answer = client.post("/detect", json={"url": f"{inner.base}/{name}?a=b#c"})
            assert answer.status_code == status and words in answer.text, (name, answer.text)
            if status == 200:
                assert answer.json()["width"] == 99 and answer.json()["image"].startswith(inner.base)


@pytest.fixture
def outer() -> Iterator[Publisher]:
    """A server that stands for the open internet: at another address of this machine."""
    try:
        with publisher("127.0.0.2") as server:
            yield server
    except OSError:
        pytest.skip("this system has no 127.0.0.2")


def test_a_name_that_changes_its_address_in_between(outer: Publisher) -> None:
    """DNS rebinding: what was checked is what is asked, and each step of the way is checked."""
    port = int(outer.base.rpartition(":")[2])
    answers: list[list[str]] = []
    remote = Remote(
        10**6, 20, ports=frozenset({port}), look_up=lambda host, port: answers.pop(0),
        is_open=lambda address: str(address) == "127.0.0.2",
    )  # fmt: skip
    with publisher("127.0.0.1", port) as hidden:
        hidden.serve("a.png", SECRET)
        outer.serve("a.png", b"public")
        answers += [["127.0.0.2"], ["127.0.0.1"]]
        assert remote.get(f"http://rebinding.example:{port}/a.png") == b"public"
        assert answers == [["127.0.0.1"]], "the name was looked up once"
        with pytest.raises(Refused, match="not fetched"):
            remote.get(f"http://rebinding.example:{port}/a.png")
        for both in (["127.0.0.2", "127.0.0.1"], ["127.0.0.1", "127.0.0.2"], [], ["127.0.0.2", "::1%lo"]):
            answers[:] = [both]
            with pytest.raises(Refused, match="not fetched"):
                remote.get(f"http://both.example:{port}/a.png")
        outer.serve("on", location=f"http://next.example:{port}/a.png")
        answers[:] = [["127.0.0.2"], ["127.0.0.1"]]
        with pytest.raises(Refused, match="not fetched"):
            remote.get(f"http://first.example:{port}/on")
        assert hidden.requests == []
        with pytest.raises(Refused, match="not fetched"):
            Remote(10**6, 20, look_up=lambda host, port: ["127.0.0.2"], is_open=remote.is_open).get(
                f"{outer.base}/a.png"
            )


def test_the_machines_own_address_is_the_inside(inner: Publisher) -> None:
    """One that the name service and the networks call public leads to this machine all the same."""
    port = int(inner.base.rpartition(":")[2])
    remote = Remote(
        10**6, 20, ports=frozenset({port}), look_up=lambda host, port: ["127.0.0.1"], is_open=lambda a: True
    )
    with pytest.raises(Refused, match="not fetched"):
        remote.get(f"http://me.example:{port}/secret.png")
    assert inner.requests == []


@pytest.mark.parametrize("how", [{"stall_after": 10}, {"bytes_per_second": 60}], ids=["stalls", "drips"])
def test_a_host_that_is_slow_is_not_waited_for(inner: Publisher, how: dict[str, int]) -> None:
    inner.serve("slow.png", bytes(6000), **how)
    host = inner.base.partition("//")[2]
    before = threading.active_count()
    with pytest.raises(Refused, match=r"takes longer than 0\.3 s"):
        Remote(10**6, 0.3, frozenset({host})).get(f"{inner.base}/slow.png")
    until(lambda: threading.active_count() <= before + 1)  # the server's own; the clock of the fetching one is gone


def test_queue_and_places_are_free_again_after_addresses(inner: Publisher) -> None:
    host = inner.base.partition("//")[2]
    service = Service(Held(False), Limits(queue=1), remote=Remote(10**6, 20, frozenset({host})))
    with running(service) as client:
        for name, status in (("none", 422), ("secret.png", 200), ("none", 422)):
            assert client.post("/detect", json={"url": f"{inner.base}/{name}"}).status_code == status
