"""`fcos serve`: a detector that answers over HTTP."""

from __future__ import annotations

import logging
import re
from typing import Any

import click

from .. import zoo
from ..paths import is_exported, is_repository
from . import engineoptions, thresholds
from . import options as shared
from .checks import check, require_package
from .session import Result, Session, fcos_command


def _hosts(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> frozenset[str]:
    for text in values:
        if not re.fullmatch(r"[^\s/@]+:\d{1,5}", text):
            raise click.BadParameter(f"{text!r} is not HOST:PORT, such as pictures.local:9000.")
    return frozenset(text.lower() for text in values)


@fcos_command("serve")
@shared.weights()
@shared.model()
@shared.offline
@shared.force_recipe
@thresholds.threshold
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; 0.0.0.0 is all of them.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 is any that is free.")
@click.option(
    "--max-batch", type=click.IntRange(1), help="Pictures of equal size at a time.  [default: 8 on a GPU, else 1]"
)
@click.option(
    "--max-wait-ms", type=click.FloatRange(0), default=5, show_default=True,
    help="Milliseconds that a picture waits for others to go with it.",
)  # fmt: skip
@click.option(
    "--queue", type=click.IntRange(1), default=64, show_default=True,
    help="Requests in work at a time; who comes then is asked to come back (429).",
)  # fmt: skip
@click.option("--limit-mb", type=shared.POSITIVE, default=20, show_default=True, help="Largest request.")
@click.option(
    "--max-pixels", type=click.IntRange(1), default=50_000_000, show_default=True,
    help="Width times height of the largest picture.",
)  # fmt: skip
@click.option("--timeout", type=shared.POSITIVE, default=30, show_default=True, help="Seconds for a request to arrive.")
@click.option("--allow-urls", is_flag=True, help="Fetch pictures from public addresses that requests name.")
@click.option(
    "--url-host", "hosts", multiple=True, metavar="HOST:PORT", callback=_hosts,
    help="With --allow-urls: a host of the inside that may be named, too; repeatable.",
)  # fmt: skip
@engineoptions.engine
@shared.device
@shared.optimize
def command(
    session: Session, weights: str | None, model: str | None, host: str, port: int, device: str | None,
    engine: str | None, **options: Any,
) -> Result:  # fmt: skip
    """Answer requests over HTTP: POST a picture to /detect, or drop one on the page at /.

    /docs tells what can be asked, /openapi.json tells it to programs, /metrics is for Prometheus, /healthz and /readyz
    are for what starts and watches servers.

    Ctrl-C or SIGTERM ends it: requests that have come are answered first, and connections are told. There is no login:
    put a server that strangers reach behind one that has.
    """
    for package in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        require_package(package, "fcos serve", "fcos_d2[serve]")
    if options["hosts"] and not options["allow_urls"]:
        raise click.UsageError("--url-host is for --allow-urls: add that.")
    if is_repository(weights):
        from ..hub import located

        weights = located(str(weights))
    if weights is None and model is None:
        model = zoo.DEFAULT
    by_engine = is_exported(weights) or engine not in (None, "torch")
    if by_engine:
        engineoptions.require_plain(weights, model=model, optimize=options["optimize"], device=device)
    if not is_exported(weights):
        check(weights=weights, model=model, device=device, detects=True)
    from ..serve.server import Server, bound, url_of

    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # which tells each wrong form of a stranger

    listener = bound(host, port)  # before the weights are read, so that a port that is taken is told at once
    with listener:
        named = (engine or engineoptions.engine_of(str(weights))) if by_engine else None
        url, service = url_of(listener), _service(session, weights, model, device, named, **options)
        told = f"{service.model} answers at {url} (a page to drop pictures on); Ctrl-C ends."
        server = Server(service, lambda: session.say(told))
        server.run(sockets=[listener])
    counted = service.metrics
    data = {
        "url": url, "accepted": counted.accepted, "answered": counted.answered,
        "by_status": {str(status): count for status, count in sorted(counted.by_status.items())},
    }  # fmt: skip
    statuses = ", ".join(f"{count} with {status}" for status, count in data["by_status"].items())
    return Result(data, f"{data['answered']} of {data['accepted']} requests were answered{' (' if statuses else ''}"
                  f"{statuses}{')' if statuses else ''}.")  # fmt: skip


def _service(
    session: Session, weights: str | None, model: str | None, device: str | None, name: str | None, **options: Any
) -> Any:
    from ..serve.limits import Limits
    from ..serve.remote import Remote
    from ..serve.service import Service

    engine, on_gpu = _engine(session, weights, model, device, name, **options)
    limit = int(options["limit_mb"] * 1_000_000)
    limits = Limits(options["queue"], limit, options["max_pixels"], options["timeout"])
    remote = Remote(limit, options["timeout"], options["hosts"]) if options["allow_urls"] else None
    batch = options["max_batch"] or (8 if on_gpu else 1)
    wait = options["max_wait_ms"] / 1000
    return Service(engine, limits, batch, wait, remote, str(weights or model).rpartition("/")[2])


def _engine(
    session: Session, weights: str | None, model: str | None, device: str | None, name: str | None, *,
    force_recipe: bool, threshold: Any, optimize: str | None, **rest: Any,
) -> tuple[Any, bool]:  # fmt: skip
    """What looks at pictures, in an engine by its name or as it comes, and whether it does so on a GPU."""
    if not is_exported(weights):
        session.start(device)
    if name is not None:
        from ..engines import open_engine

        return open_engine(str(weights), name, threshold=threshold), False
    from ..engines.plain import TorchEngine
    from ..predict import Predictor

    predictor = Predictor(
        model or str(weights), weights=weights, device=device, score_threshold=threshold, optimize=optimize or False,
        allow_py=not session.no_py, force_recipe=force_recipe, otherwise=0.5,
    )  # fmt: skip
    return TorchEngine(predictor), predictor.device.type == "cuda"
