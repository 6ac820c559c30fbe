"""Who waits, who goes together, who is sent away, and that nobody is forgotten."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest
from served import Held, picture, running, until

from fcos_d2.serve.limits import Limits
from fcos_d2.serve.service import Service
from fcos_d2.serve.waiting import DetectionQueue


def post(client: httpx.Client, width: int = 64) -> httpx.Response:
    return client.post("/detect", content=picture(width))


def sent(
    pool: ThreadPoolExecutor, service: Service, client: httpx.Client, *widths: int
) -> list[Future[httpx.Response]]:
    """Requests, one after the other, each on its way to the engine when the next is sent."""
    made = []
    for width in widths:
        before = len(service.queue) + service.engine.entered.is_set()
        made.append(pool.submit(post, client, width))
        until(lambda before=before: len(service.queue) + service.engine.entered.is_set() > before)
    return made


def test_pictures_of_one_size_go_together_the_oldest_first() -> None:
    service = Service(Held(), max_batch=3)
    with running(service) as client, ThreadPoolExecutor(8) as pool:
        waiting = sent(pool, service, client, 64, 30, 64, 64, 30, 64, 64)
        service.engine.free.set()
        found = [future.result().json() for future in waiting]
    assert service.engine.seen == [[64], [30, 30], [64, 64, 64], [64]]
    assert [row["batch"] for row in found] == [1, 2, 3, 3, 2, 3, 1]
    assert [row["width"] for row in found] == [64, 30, 64, 64, 30, 64, 64]


def test_one_that_is_too_much_spoils_no_other() -> None:
    """A batch that fails is done one by one."""
    engine = Held()
    queue = DetectionQueue(engine, max_batch=4, max_wait=60)
    import numpy as np

    bad, good = np.zeros((5, 13, 3), np.uint8), np.zeros((5, 7, 3), np.uint8)
    futures = [queue.put(bad) for _ in range(4)]
    engine.free.set()
    assert all(isinstance(future.exception(60), RuntimeError) for future in futures)
    assert [len(batch) for batch in engine.seen] == [4, 1, 1, 1, 1]
    futures = [queue.put(good) for _ in range(4)]
    assert [len(future.result(60).boxes.boxes) for future in futures] == [1] * 4 and queue.is_alive
    last = queue.put(good)
    queue.close()  # does not wait for others that could go with it
    assert last.result(0).batch == 1 and not queue.is_alive


def test_an_engine_that_fails_is_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    service = Service(Held(held=False))
    with running(service) as client:
        answer = post(client, 13)
        assert answer.status_code == 500 and answer.json()["error"].startswith("The picture could not be looked at")
        assert "cannot do this one" not in answer.text and post(client).status_code == 200


def test_who_finds_no_place_is_asked_to_come_back() -> None:
    service = Service(Held(), Limits(queue=2), max_batch=1)
    with running(service) as client, ThreadPoolExecutor(2) as pool:
        waiting = sent(pool, service, client, 64, 64)
        for body in (picture(), b"x" * 1_000_000):
            answer = client.post("/detect", content=body)
            assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
            assert "All 2 places are taken" in answer.json()["error"]
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
        service.engine.free.set()
        assert [future.result().status_code for future in waiting] == [200, 200] and post(client).status_code == 200
    assert service.metrics.by_status == {429: 2, 200: 3} and service.metrics.accepted == service.metrics.answered == 3


def test_an_answer_that_takes_too_long_is_not_waited_for() -> None:
    service = Service(Held(), Limits(timeout=0.3), max_batch=1)
    with running(service) as client:
        answer = post(client)
        assert answer.status_code == 503 and "retry-after" in answer.headers
        service.engine.free.set()
        until(lambda: post(client).status_code == 200)


def test_who_goes_away_is_not_worked_for() -> None:
    service = Service(Held(), max_batch=1)
    with running(service) as client, ThreadPoolExecutor(1) as pool:
        (first,) = sent(pool, service, client, 64)
        with (
            httpx.Client(base_url=client.base_url, timeout=0.3, trust_env=False) as other,
            pytest.raises(httpx.ReadTimeout),
        ):
            other.post("/detect", content=picture(30))
        until(lambda: "fcos_requests_in_work 1.0" in client.get("/metrics").text)
        service.engine.free.set()
        assert first.result().status_code == 200
    assert service.engine.seen == [[64]] and service.metrics.by_status == {200: 1, 499: 1}


def test_what_has_come_is_answered_before_the_end() -> None:
    """Requests in the engine, waiting, and on connections that are open; then nobody listens any more."""
    service = Service(Held(), max_batch=1)
    with running(service) as client, ThreadPoolExecutor(4) as pool, httpx.Client(base_url=client.base_url) as other:
        assert other.get("/readyz").status_code == 200
        waiting = sent(pool, service, client, 64, 30, 64)
        service.leaving = True
        answer = other.get("/readyz")
        assert answer.status_code == 503 and answer.headers["connection"] == "close"
        assert answer.json() == {"status": "leaving"}
        threading.Timer(1.5, service.engine.free.set).start()  # after the server has stopped to listen
        answers = [future.result() for future in waiting]
        assert [answer.status_code for answer in answers] == [200] * 3
        assert {answer.headers["connection"] for answer in answers} == {"close"}
        with pytest.raises(httpx.ConnectError):
            other.get("/readyz")
    assert service.metrics.accepted == service.metrics.answered == 3
