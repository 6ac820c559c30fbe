"""How much memory an image needs, in training and in inference: `python -m projects_tools.bench.memory VARIANT`.

Each figure is the peak of one step in a process of its own: of the GPU's allocator, or of resident memory on the CPU,
above what is used before the model is built. A step of one image and one of two give what is there once (weights,
gradients, averages of the optimizer) and what each image adds.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from torch import nn

from fcos_d2.errors import FcosError
from fcos_d2.evaluation.speed import reset_peak, resident

__all__ = ["WAYS", "Memory", "measure", "table"]

MiB = 1 << 20

# glibc gives a block of this many bytes back at once when it is freed. Else it keeps freed blocks as it sees fit, and
# the same step needs other amounts from one run to the next.
_ALLOCATION = {"MALLOC_MMAP_THRESHOLD_": "65536"}

# Words of a way to run, which may stand together ("bf16+all"): options of `train`, or inference.
WAYS = ("plain", "bf16", "channels_last", "backbone", "all", "inference")


@dataclass(frozen=True)
class Memory:
    """What was measured at one size and in one way.

    Attributes:
        height, width: of the images, pixels.
        way: words of `WAYS`, joined by "+".
        one, two: peak of a batch of one image and of two, bytes.
    """

    height: int
    width: int
    way: str
    one: int
    two: int

    @property
    def per_image(self) -> int:
        """What each image adds, bytes."""
        return self.two - self.one

    @property
    def fixed(self) -> int:
        """What does not depend on the images, bytes."""
        return self.one - self.per_image

    @property
    def pixels_per_gib(self) -> float:
        """Pixels of one image that a GiB, beyond what is there once, is enough for."""
        return self.height * self.width * (1 << 30) / self.per_image


def measure(variant: str, height: int, width: int, way: str, device: str = "cpu", threads: int = 1) -> Memory:
    """Peak memory at one size and in one way.

    Args:
        variant: a config as `load_config` takes it, e.g. a name of the zoo.
        height, width: of the images, pixels.
        way: words of `WAYS`, joined by "+".
        device: "cpu" or "cuda".
        threads: of PyTorch on the CPU.
    Raises:
        FcosError: there is no such way, or the system does not tell how much memory a process uses.
    """
    unknown = set(way.split("+")) - set(WAYS)
    if unknown:
        raise FcosError(f"There is no way {', '.join(sorted(unknown))} to run; there are {', '.join(WAYS)}.")
    if device == "cpu" and not Path("/proc/self/clear_refs").exists():
        raise FcosError("Peak memory on the CPU is read from /proc/self, which this system does not have.")
    peaks = []
    for batch in (1, 2):
        request = {"variant": variant, "size": [height, width], "way": way, "device": device, "threads": threads}
        command = [
            sys.executable,
            "-m",
            __name__ if __name__ != "__main__" else "projects_tools.bench.memory",
            "--child",
        ]
        done = subprocess.run(
            [*command, json.dumps({**request, "batch": batch})],
            capture_output=True,
            text=True,
            encoding="utf-8",
            env={**os.environ, **_ALLOCATION},
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise FcosError(f"Measuring {variant} at {height}x{width} ({way}) failed: {last}")
        peaks.append(int(done.stdout.split()[-1]))
    return Memory(height, width, way, *peaks)


def table(rows: Sequence[Memory]) -> str:
    """The rows in Markdown."""
    lines = [
        "| image | way | there once | each image | bytes per pixel | largest square for 1 GiB |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        side = int(row.pixels_per_gib**0.5)
        per_pixel = row.per_image / (row.height * row.width)
        lines.append(
            f"| {row.height}x{row.width} | {row.way} | {row.fixed / MiB:.0f} MiB | {row.per_image / MiB:.0f} MiB | "
            f"{per_pixel:.0f} | {side}x{side} |"
        )
    return "\n".join(lines)


def _peak(variant: str, size: tuple[int, int], way: str, batch: int, device: str) -> int:
    """Bytes of one step above what this process uses now."""
    from fcos_d2.config.load import load_config
    from fcos_d2.modeling.rewrite import rewrite

    words = set(way.split("+"))
    cfg = load_config(variant)
    gc.collect()
    before = resident("VmRSS") if device == "cpu" else 0
    model: nn.Module = instantiate(cfg.model).to(device)
    if "channels_last" in words:
        model.to(memory_format=torch.channels_last)
    if "inference" not in words:
        for part in ("backbone", "all"):
            if part in words:
                model = rewrite(model, recompute=part, share_tensors=True)
        cfg.optimizer.params.model = model
        optimizer = instantiate(cfg.optimizer)

    def step(inputs: list[dict[str, Any]]) -> None:
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled="bf16" in words):
            if "inference" in words:
                with torch.inference_mode():
                    model.eval()(inputs)
                return
            losses = model.train()(inputs)
        optimizer.zero_grad(set_to_none=True)
        sum(losses.values()).backward()
        optimizer.step()

    step(_inputs((64, 64), 1, cfg.model.num_classes))  # libraries load; the optimizer makes its averages
    inputs = _inputs(size, batch, cfg.model.num_classes)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        step(inputs)
        return torch.cuda.max_memory_allocated()
    reset_peak()
    step(inputs)
    return resident("VmHWM") - before


def _inputs(size: tuple[int, int], batch: int, num_classes: int) -> list[dict[str, Any]]:
    """Noise with seven boxes in each image, as many as COCO has on average."""
    random = torch.Generator().manual_seed(0)
    found = []
    for _ in range(batch):
        extent = torch.tensor([size[1], size[0]], dtype=torch.float32)
        corners = torch.rand(7, 2, 2, generator=random) * extent
        boxes = torch.cat((corners.amin(dim=1), corners.amax(dim=1) + 1), dim=1)
        classes = torch.randint(0, num_classes, (7,), generator=random)
        found.append(
            {
                "image": torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=random),
                "instances": Instances(size, gt_boxes=Boxes(boxes), gt_classes=classes),
            }
        )
    return found


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    try:
        return int(height), int(width)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write HEIGHTxWIDTH, for example 800x1333") from None


def main() -> None:
    """The command; with --child one figure for `measure`."""
    if sys.argv[1:2] == ["--child"]:
        request = json.loads(sys.argv[2])
        torch.set_num_threads(request["threads"])
        print(_peak(request["variant"], tuple(request["size"]), request["way"], request["batch"], request["device"]))
        return
    parser = argparse.ArgumentParser(
        prog="python -m projects_tools.bench.memory", description="Peak memory of a training step and of inference."
    )
    parser.add_argument("variant", help="name of the zoo, config file or checkpoint")
    parser.add_argument("--size", type=_size, action="append", help="HEIGHTxWIDTH of the images, repeatable")
    parser.add_argument("--way", action="append", help=f"words of: {', '.join(WAYS)}; joined by +, repeatable")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch on the CPU")
    parser.add_argument("--json-file", type=Path, help="write the figures in bytes")
    args = parser.parse_args()
    rows = []
    for height, width in args.size or [(512, 640), (800, 1333)]:
        for way in args.way or ["plain", "channels_last", "bf16", "backbone", "all", "bf16+all", "inference"]:
            print(f"{height}x{width}, {way} ...", file=sys.stderr, flush=True)
            rows.append(measure(args.variant, height, width, way, args.device, args.threads))
    print(table(rows))
    if args.json_file is not None:
        args.json_file.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    from fcos_d2.train.distributed import main_of_script

    main_of_script(main)
