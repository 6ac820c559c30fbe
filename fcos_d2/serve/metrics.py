"""What a server counts, for Prometheus and for what it says when it ends."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

__all__ = ["Metrics"]

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Of one server; several in one process do not mix.

    Args:
        waiting: how many pictures wait for the engine now.
        in_work: how many requests are in work now.
    """

    def __init__(self, waiting: Callable[[], float], in_work: Callable[[], float]) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._requests = Counter(
            "fcos_requests", "Requests to detect, by the status of the answer.", ["status"], registry=registry
        )
        self._seconds = Histogram(
            "fcos_request_seconds", "From the first byte of a request to its answer.", registry=registry,
            buckets=_SECONDS,
        )  # fmt: skip
        self._batches = Histogram(
            "fcos_batch_pictures", "Pictures that went through the engine together.", registry=registry,
            buckets=(1, 2, 4, 8, 16, 32),
        )  # fmt: skip
        self._engine = Histogram(
            "fcos_engine_seconds", "Time of a batch in the engine.", registry=registry, buckets=_SECONDS
        )
        self._objects = Counter("fcos_objects", "Objects that were found, by class.", ["name"], registry=registry)
        for name, told, value in (
            ("fcos_pictures_waiting", "Pictures that wait for the engine.", waiting),
            ("fcos_requests_in_work", "Requests that are being read, wait, or are looked at.", in_work),
        ):
            Gauge(name, told, registry=registry).set_function(value)
        self.accepted = self.answered = 0  # requests that had a place, and those of them that have an answer
        self.by_status: dict[int, int] = {}

    def batch(self, size: int, seconds: float) -> None:
        """A batch went through the engine."""
        self._batches.observe(size)
        self._engine.observe(seconds)

    def found(self, name: str) -> None:
        """An object was reported."""
        self._objects.labels(name).inc()

    def request(self, status: int, seconds: float, accepted: bool) -> None:
        """A request to detect has its answer; `accepted` says whether it had a place."""
        self.answered += accepted
        self._requests.labels(str(status)).inc()
        self._seconds.observe(seconds)
        self.by_status[status] = self.by_status.get(status, 0) + 1

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)
