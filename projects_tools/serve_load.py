"""`fcos serve` under load: right answers, sentences for what is broken, memory, seconds, and what a restart loses.

python -m projects_tools.serve_load --weights model_best.pth --pictures folder --requests 1000 --clients 8 --broken 0.05
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from fcos_d2.files import IMAGE_SUFFIXES

FORM = {"Content-Type": "multipart/form-data; boundary=cut"}
JSON = {"Content-Type": "application/json"}
# What is broken: how a picture's bytes are spoilt, and the headers.
BROKEN: tuple[tuple[Callable[[bytes], bytes], dict[str, str]], ...] = (
    (lambda data: data[: len(data) // 2], {}),
    (lambda data: b"", {}),
    (lambda data: b"this is no picture", {}),
    (lambda data: data[::-1], {}),
    (lambda data: data, {"Content-Type": "multipart/form-data"}),
    (lambda data: b"--cut\r\n" + data[:500], FORM),
    (lambda data: b'--cut\r\nContent-Disposition: form-data; name="x"\r\n\r\nx\r\n--cut--\r\n', FORM),
    (lambda data: b'{"url": "http://127.0.0.1/"}', JSON),
    (lambda data: b'{"url": ', JSON),
    (lambda data: data + bytes(21_000_000), {}),
)


class Answer(NamedTuple):
    """To one request; `picture` is its number, or -1 for one that was broken."""

    picture: int
    status: int
    data: dict[str, Any]
    seconds: float


class Process:
    """A server; `port` 0 is any that is free."""

    def __init__(self, weights: Path, port: int, options: Sequence[str]) -> None:
        words = ["serve", "--weights", str(weights), "--port", str(port), "--json", *options]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fcos_d2.cli", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            encoding="utf-8",
        )  # fmt: skip
        assert self.process.stderr
        for line in self.process.stderr:
            if found := re.search(r"answers at http://127\.0\.0\.1:(\d+) ", line):
                self.port = int(found[1])
                return
        raise SystemExit(f"The server did not start: fcos {' '.join(words)}")

    def resident(self) -> float:
        """MiB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(re.findall(r"VmRSS:\s+(\d+) kB", text)[0]) / 1024

    def end(self) -> dict[str, Any]:
        """Ask it to end; what it has counted."""
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=120)
        if self.process.returncode:
            raise SystemExit(err)
        return json.loads(out)


class Client:
    """Sends requests over one connection; what no answer has begun to come to is sent again."""

    def __init__(self, port: int) -> None:
        self.port, self.again = port, 0
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, picture: int, body: bytes, headers: dict[str, str]) -> Answer:
        began = time.perf_counter()
        while True:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
            try:
                self._connection.request("POST", "/detect", body, headers)
                reply = self._connection.getresponse()
            except OSError:  # refused, or closed before an answer began: nobody has accepted it
                self._connection.close()
                self._connection = None
                self.again += 1
                time.sleep(0.1)
                continue
            data = json.loads(reply.read())  # half an answer is an error that ends the run
            if reply.status == 429:
                time.sleep(int(reply.headers["Retry-After"]))
                continue
            return Answer(picture, reply.status, data, time.perf_counter() - began)


def run(
    port: int, jobs: Sequence[tuple[int, bytes, dict[str, str]]], clients: int, watch: Callable[[int], None]
) -> tuple[list[Answer], int]:  # fmt: skip
    """All answers, and how many requests were sent again."""
    todo, lock = iter(jobs), threading.Lock()
    answers: list[Answer] = []

    def work(_: int) -> int:
        client = Client(port)
        while True:
            with lock:
                job = next(todo, None)
            if job is None:
                return client.again
            found = client.ask(*job)
            with lock:
                answers.append(found)
                count = len(answers)
            watch(count)

    with ThreadPoolExecutor(clients) as pool:
        again = sum(pool.map(work, range(clients)))
    return answers, again


def made(pictures: Sequence[bytes], count: int, broken: float, seed: int) -> list[tuple[int, bytes, dict[str, str]]]:
    """Requests, a share of them broken."""
    chance = random.Random(seed)
    bad = set(chance.sample(range(count), round(broken * count)))
    jobs = []
    for number in range(count):
        which = number % len(pictures)
        if number in bad:
            spoil, headers = chance.choice(BROKEN)
            jobs.append((-1, spoil(pictures[which]), headers))
        else:
            jobs.append((which, pictures[which], {}))
    return jobs


def told(title: str, answers: Sequence[Answer], seconds: float) -> None:
    good = [answer.seconds * 1000 for answer in answers if answer.status == 200]
    ranks = statistics.quantiles(good, n=100)
    print(
        f"{title}: {len(answers)} requests, {dict(sorted(Counter(answer.status for answer in answers).items()))}, "
        f"{len(good) / seconds:.1f} pictures/s, median {statistics.median(good):.0f} ms, p99 {ranks[98]:.0f} ms"
    )


def check(answers: Sequence[Answer], wanted: Sequence[list[dict[str, Any]]]) -> None:
    """Say how far answers are from the plain predictor's."""
    wrong, box, score, unsaid = 0, 0.0, 0.0, 0
    for answer in answers:
        if answer.picture < 0:
            unsaid += not (400 <= answer.status < 500 and str(answer.data.get("error", "")).endswith("."))
            continue
        found, right = answer.data.get("detections", []), wanted[answer.picture]
        if answer.status != 200 or [row["class"] for row in found] != [row["class"] for row in right]:
            wrong += 1
            continue
        box = max([box, *(abs(a - b) for x, y in zip(found, right) for a, b in zip(x["box"], y["box"]))])
        score = max([score, *(abs(x["score"] - y["score"]) for x, y in zip(found, right))])
    objects = sum(map(len, wanted))
    print(
        f"good requests with other detections than the predictor's ({objects} objects in {len(wanted)} pictures): "
        f"{wrong}; boxes differ by {box:.3g} px at most, scores by {score:.2g}; broken ones without 4xx and sentence: "
        f"{unsaid}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, required=True, help="folder")
    parser.add_argument("--most", type=int, default=40, help="different pictures")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--broken", type=float, default=0.05, help="share of requests")
    parser.add_argument("--plain", type=int, default=100, help="pictures of the plain loop")
    parser.add_argument("options", nargs="*", help="of fcos serve, after --")
    arguments = parser.parse_args()
    files = [path for path in sorted(arguments.pictures.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES]
    pictures = [path.read_bytes() for path in files[: arguments.most]]

    server = Process(arguments.weights, 0, arguments.options)
    run(server.port, made(pictures, 40, 0, 0), arguments.clients, lambda count: None)  # warm
    memory: dict[int, float] = {0: server.resident()}

    def watch(count: int) -> None:
        if count % (arguments.requests // 5) == 0:
            memory[count] = server.resident()

    began = time.perf_counter()
    jobs = made(pictures, arguments.requests, arguments.broken, 1)
    answers, _ = run(server.port, jobs, arguments.clients, watch)
    told("under load", answers, time.perf_counter() - began)
    print("resident memory, MiB after so many requests:", {count: round(value) for count, value in memory.items()})

    servers, counted = [server], []

    def restart(count: int) -> None:
        if count == 50:
            counted.append(servers[0].end())
            servers.append(Process(arguments.weights, servers[0].port, arguments.options))

    restarted, again = run(server.port, made(pictures, 200, arguments.broken, 2), arguments.clients, restart)
    counted.append(servers[-1].end())
    accepted, answered = (sum(row[key] for row in counted) for key in ("accepted", "answered"))
    print(
        f"ended and started again after 50 of 200 requests: {len(restarted)} answers; the servers accepted {accepted} "
        f"and answered {answered}; {again} attempts found nobody listening and were sent again"
    )
    plain(arguments, files[: arguments.most], [*answers, *restarted])


def plain(arguments: argparse.Namespace, files: Sequence[Path], answers: Sequence[Answer]) -> None:
    """The same pictures one by one in a loop, and whether answers are what it finds."""
    from fcos_d2 import Predictor

    predictor = Predictor(arguments.weights, otherwise=0.5)
    wanted = [predictor.describe(predictor(path)["instances"]) for path in files]
    began = time.perf_counter()
    for number in range(arguments.plain):
        predictor(files[number % len(files)])
    print(f"plain loop: {arguments.plain / (time.perf_counter() - began):.1f} pictures/s")
    check(answers, wanted)


if __name__ == "__main__":
    main()
