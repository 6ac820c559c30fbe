"""`fcos bench`: how fast a detector is, plain and optimized."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Group
from rich.table import Table
from rich.text import Text

from . import options as shared
from .checks import check
from .session import Result, Session, fcos_command

_WAYS: dict[str, Any] = {"fp32": "fp32", "bf16": "bf16", "bf16-backbone": {"backbone": "bf16"}, "fp16": "fp16"}
_OTHERS = "Beside other FCOS implementations: python -m projects_tools.bench in a checkout, see docs/performance.md."


def _size(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is no size; write HEIGHTxWIDTH, for example 800x1216.")
    return int(match[1]), int(match[2])


@fcos_command("bench", epilog=_OTHERS)
@shared.model("Variant, config or checkpoint; by default what --weights holds, else fcos_imprv_R_50_FPN_1x.")
@shared.weights("Checkpoint of the detector; without one its weights are random.")
@shared.offline
@click.option("--size", callback=_size, default="800x1216", show_default=True, metavar="HxW", help="Of the images.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Images of a run.")
@click.option(
    "--optimize", "ways", multiple=True, type=click.Choice(["none", *_WAYS]), default=["fp32"], show_default=True,
    help="What to run beside the plain model, repeatable.",
)  # fmt: skip
@shared.device
@click.option(
    "--suite", type=click.Choice(["optimize", "engines"]), default="optimize", show_default=True,
    help="engines: PyTorch, onnxruntime and OpenVINO, beside Detectron2's and torchvision's models, on the CPU.",
)  # fmt: skip
@shared.path("--file", "files", multiple=True, help="With --suite engines: an exported file to run, too, repeatable.")
@click.option("--seconds", type=shared.POSITIVE, default=10, show_default=True, help="Roughly.")
def command(
    session: Session, model: str | None, weights: str | None, size: tuple[int, int], batch: int,
    ways: tuple[str, ...], device: str | None, suite: str, files: tuple[Path, ...], seconds: float,
) -> Result:  # fmt: skip
    """Measure time and memory of a detector on images of one size, plain and optimized in turns.

    \b
    fcos bench --weights output/mine/model_best.pth --size 480x640
    fcos bench --model FCOS_RT_MS_DLA_34_4x --size 512x512 --optimize fp32 --optimize bf16
    fcos bench --suite engines --size 800x1216

    Times are those of the network and its post-processing on random images, without reading them. All ways must find
    what the plain one finds; the output says whether they do.
    """
    if suite == "engines":
        device = "cpu"
    check(weights=weights, model=model, device=device)
    session.start(device)
    import torch

    from ..config.load import CHECKPOINTS
    from ..evaluation import speed
    from ..predict import Predictor

    source = model or weights or ("detectron2/fcos_R_50_FPN_1x" if suite == "engines" else "fcos_imprv_R_50_FPN_1x")
    weights = weights or (None if Path(source).suffix.lower() in CHECKPOINTS else "random")
    predictor = Predictor(source, weights=weights, device=device, allow_py=not session.no_py, force_recipe=True)
    plain: Any = predictor.model
    noise = torch.rand(batch, 3, size[0] // 16 + 1, size[1] // 16 + 1, generator=torch.Generator().manual_seed(0)) * 255
    inputs = [{"image": image} for image in torch.nn.functional.interpolate(noise, size, mode="bilinear")]
    if suite == "engines":
        from ..engines.suite import measured

        found = measured(predictor, source, weights, files, inputs, seconds, session.say)
        return _result(plain, source, inputs, found)
    wanted = {f"optimized, {way}": _WAYS[way] for way in ways if way != "none" and hasattr(plain, "optimize")}
    session.say("Comparing detections ...")
    finding = speed.finding(plain, inputs)
    expected = speed.detections(finding, inputs)
    same = [speed.difference(expected, speed.detections(finding.optimize(way), inputs)) for way in wanted.values()]
    session.say("Measuring ...")
    models = {"plain": plain} | {name: plain.optimize(way) for name, way in wanted.items()}
    rows = speed.measure(models, inputs, predictor.device, seconds)
    return _result(plain, source, inputs, [{**row, "detections": x} for row, x in zip(rows, [None, *same])])


def _result(plain: Any, source: str, inputs: Sequence[dict[str, Any]], ways: list[dict[str, Any]]) -> Result:
    """What was measured; the last use of the model `plain`."""
    import torch

    from ..modeling.cost import cost

    height, width = inputs[0]["image"].shape[1:]
    device = next(plain.parameters()).device
    data = {
        "model": source, "height": height, "width": width, "batch": len(inputs),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(), "torch": torch.__version__,
        "parameters": sum(p.numel() for p in plain.parameters()),
        "gflops": round(cost(plain, height, width).gflops, 1) if hasattr(plain, "dense") else None, "ways": ways,
    }  # fmt: skip
    return Result(data, _view(data))


def _view(data: dict[str, Any]) -> Any:
    head = (
        f"{data['model']}: {data['batch']} x {data['height']}x{data['width']}, {data['device']}, {data['threads']} "
        f"threads, PyTorch {data['torch']}\n{data['parameters'] / 1e6:.1f} M parameters"
        + ("" if data["gflops"] is None else f", {data['gflops']:.1f} GFLOPs an image")
    )
    table = Table(box=None, pad_edge=False)
    for title in ("", "ms an image", "fastest to slowest", "images/s", "times faster", "first run ms", "memory MiB"):
        table.add_column(title, justify="right" if title else "left", no_wrap=True)
    table.add_column("detections")
    for row in data["ways"]:
        memory = "unknown" if row["memory_bytes"] is None else f"{row['memory_bytes'] / 2**20:.0f}"
        table.add_row(
            row["name"], f"{row['ms_per_image']:.1f}", f"{row['fastest_ms']:.1f} to {row['slowest_ms']:.1f}",
            f"{row['images_per_s']:.2f}", f"{row['speed_up']:.2f}x", f"{row['first_run_ms']:.0f}", memory,
            _same(row["detections"]),
        )  # fmt: skip
    return Group(Text(head), Text(""), table, Text(""), Text(_OTHERS, "dim"))


def _same(found: dict[str, Any] | None) -> str:
    if not found or not found["total"]:
        return "none to compare" if found else ""
    verdict = "the same" if found["equal"] else f"{found['partners']} of {found['total']} have a partner"
    return f"{verdict}, within {found['box']:.1e} px and {found['score']:.1e}"
