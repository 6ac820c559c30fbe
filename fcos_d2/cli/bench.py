"""`fcos bench`: how fast a detector is, plain and optimized."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from . import options as shared
from .session import Result, Session, fcos_command

_WAYS: dict[str, Any] = {"fp32": "fp32", "bf16": "bf16", "bf16-backbone": {"backbone": "bf16"}, "fp16": "fp16"}
_OTHERS = "Beside other FCOS implementations: python -m projects_tools.bench in a checkout, see docs/performance.md."


def _size(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is no size; write HEIGHTxWIDTH, for example 800x1216.")
    return int(match[1]), int(match[2])


@fcos_command("bench", short_help="How fast a detector is, plain and optimized.", epilog=_OTHERS)
@shared.model("Variant, config or checkpoint; by default what --weights holds, else fcos_imprv_R_50_FPN_1x.")
@shared.weights("Checkpoint of the detector; without one its weights are random.")
@click.option("--size", callback=_size, default="800x1216", show_default=True, metavar="HxW", help="Of the images.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Images of a run.")
@click.option(
    "--optimize", "ways", multiple=True, type=click.Choice(["none", *_WAYS]), default=["fp32"], show_default=True,
    help="What to run beside the plain model, repeatable.",
)  # fmt: skip
@shared.device
@click.option("--threads", type=click.IntRange(1), help="Threads of PyTorch on the CPU; by default as PyTorch has it.")
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True, help="To spend, roughly."
)
def command(
    session: Session, model: str | None, weights: str | None, size: tuple[int, int], batch: int,
    ways: tuple[str, ...], device: str | None, threads: int | None, seconds: float,
) -> Result:  # fmt: skip
    """Measure time and memory of a detector on images of one size, plain and optimized in turns.

    \b
    fcos bench --weights output/mine/model_best.pth --size 480x640
    fcos bench --model FCOS_RT_MS_DLA_34_4x --size 512x512 --optimize fp32 --optimize bf16

    Times are those of the network and its post-processing on random images, without reading them. The optimized model
    must find what the plain one finds; the output says whether it does.
    """
    session.start()
    import torch

    from ..config.load import CHECKPOINTS
    from ..evaluation import speed
    from ..predict import Predictor

    if threads is not None:
        torch.set_num_threads(threads)
    source = model or weights or "fcos_imprv_R_50_FPN_1x"
    holds_weights = Path(source).suffix.lower() in CHECKPOINTS
    predictor = Predictor(
        source, weights=weights or (None if holds_weights else "random"), device=device, allow_py=not session.no_py
    )
    plain: Any = predictor.model
    where = predictor.device
    inputs = [{"image": speed.image(*size, index)} for index in range(batch)]
    wanted = {name: _WAYS[name] for name in ways if name != "none" and hasattr(plain, "optimize")}
    session.say("Comparing detections ...")
    same = _compare(plain, inputs, wanted)
    session.say("Measuring ...")
    models = {"plain": plain} | {f"optimized, {name}": plain.optimize(way) for name, way in wanted.items()}
    rows = speed.measure(models, inputs, where, seconds)
    data = {
        "model": source, "height": size[0], "width": size[1], "batch": batch, **_machine(where), **_cost(plain, size),
        "ways": [
            {**row.as_dict(), "speed_up": rows[0].times.ratio(row.times), "detections": found}
            for row, found in zip(rows, [None, *same])
        ],
    }  # fmt: skip
    return Result(data, _view(data))


def _compare(plain: Any, inputs: list[dict[str, Any]], wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """How far the detections of each optimized model are from the plain one's."""
    from ..evaluation import speed

    reference = speed.finding(plain, inputs)
    expected = speed.detections(reference, inputs)
    found = [speed.compare(expected, speed.detections(reference.optimize(way), inputs)) for way in wanted.values()]
    return [{**vars(difference), "equal": difference.equal} for difference in found]


def _cost(model: Any, size: tuple[int, int]) -> dict[str, Any]:
    """Parameters, and GFLOPs where the model is one that `modeling.cost` knows."""
    import copy

    from ..modeling.cost import cost

    if hasattr(model, "dense"):
        found = cost(copy.deepcopy(model), *size)
        return {"parameters": found.parameters, "gflops": round(found.gflops, 1)}
    return {"parameters": sum(p.numel() for p in model.parameters()), "gflops": None}


def _machine(device: Any) -> dict[str, Any]:
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    return {"device": name, "torch": torch.__version__}


def _view(data: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    gflops = "" if data["gflops"] is None else f", {data['gflops']:.1f} GFLOPs an image"
    work = f"{data['batch']} x {data['height']}x{data['width']}"
    lines = [
        f"{data['model']}: {work}, {data['device']}, PyTorch {data['torch']}",
        f"{data['parameters'] / 1e6:.1f} M parameters{gflops}",
    ]
    table = Table(box=None, pad_edge=False)
    for title in ("", "ms an image", "fastest to slowest", "images/s", "times faster", "first run ms", "memory MiB"):
        table.add_column(title, justify="right" if title else "left", no_wrap=True)
    table.add_column("detections")
    for row in data["ways"]:
        memory = row["memory_bytes"]
        table.add_row(
            row["name"], f"{row['ms_per_image']:.1f}", f"{row['fastest_ms']:.1f} to {row['slowest_ms']:.1f}",
            f"{row['images_per_s']:.2f}", f"{row['speed_up']:.2f}x", f"{row['first_run_ms']:.0f}",
            "unknown" if memory is None else f"{memory / 2**20:.0f}", _same(row["detections"]),
        )  # fmt: skip
    return Group(*map(Text, lines), Text(""), table, Text(""), Text(_OTHERS, "dim"))


def _same(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    if not found["total"]:
        return "none to compare"
    verdict = "the same" if found["equal"] else f"{found['partners']} of {found['total']} have a partner"
    return f"{verdict}, within {found['box']:.1e} px and {found['score']:.1e}"
