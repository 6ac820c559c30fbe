"""What the numbers depend on: the data, the config, the machine and what is installed."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any

import numpy as np

import fcos_d2

from ..data import find_dataset, format_named
from ..data.audit import KINDS, audit
from ..errors import FcosError
from ..evaluation.breakdown import SIZES
from ..files import sha256_of
from ..health.inventory import system, take_inventory
from ..visualize.charts import Bars, bar_chart
from ..weights.fetch import fetch
from ..words import memory_size
from .material import Material
from .parts import Picture, Section, Table, percent

__all__ = ["config", "data", "environment"]

_BARS = 12  # classes that a chart has room for
_SIDES = (0, 8, 16, 32, 64, 128, 256, 512, np.inf)  # pixels: bounds of the square root of areas


def data(m: Material) -> Section:
    """What is in the images, and what `fcos check` says of them."""
    truth, objects = m.objects.truth, m.objects
    real = ~truth.crowd
    counts = np.bincount(truth.label[real], minlength=len(m.names))
    in_image = np.bincount(truth.image[real], minlength=len(objects.records))
    sides = np.sqrt(truth.boxes[real, 2] * truth.boxes[real, 3])
    histogram = np.histogram(sides, _SIDES)[0]
    ranges = [f"{low}+" if high == np.inf else f"{low}–{high}" for low, high in pairwise(_SIDES)]
    area, edges = objects.area[real], (0, 32**2, 96**2, np.inf)
    of_size = {size: int(((area >= low) & (area < high)).sum()) for size, low, high in zip(SIZES, edges, edges[1:])}
    total = int(real.sum())
    shown = sorted(range(len(m.names)), key=lambda k: -counts[k])[:_BARS]
    pictures = [
        Picture("objects-by-class", "Objects of each class" + ("" if len(shown) == len(m.names) else
                f", the {len(shown)} largest of {len(m.names)}") + ", as shares of all.",
                bar_chart([m.names[k] for k in shown], [Bars("", [counts[k] / max(total, 1) for k in shown])],
                          "share of objects", "Objects by class")),
        Picture("objects-by-side", "The square root of the area of boxes, pixels of the image.",
                bar_chart(ranges, [Bars("", (histogram / max(total, 1)).tolist())], "share of objects",
                          "Objects by size in pixels")),
    ]  # fmt: skip
    numbers: dict[str, Any] = {
        "dataset": objects.dataset, "images": len(objects.records), "objects": total,
        "crowd_regions": int(truth.crowd.sum()), "images_without_objects": int((in_image == 0).sum()),
        "objects_in_an_image": {"mean": float(in_image.mean()) if len(in_image) else None,
                                "most": int(in_image.max(initial=0))},
        "by_class": dict(zip(m.names, counts.tolist())), "by_size": of_size,
        "by_side": dict(zip(ranges, histogram.tolist())),
    }  # fmt: skip
    text = [
        f"{total:,} objects in {len(objects.records):,} images, {total / max(len(objects.records), 1):.1f} in each and "
        f"{in_image.max(initial=0)} at most; {numbers['images_without_objects']} images have none. "
        + ", ".join(f"{percent(count, total)} are {size}" for size, count in of_size.items()) + ".",
    ]  # fmt: skip
    tables, absent = _checked(m, numbers)
    return Section(text, tables=tables, pictures=pictures, numbers=numbers, absent=absent)


def _checked(m: Material, numbers: dict[str, Any]) -> tuple[list[Table], list[str]]:
    """What a check of the labels finds; pictures are not opened again."""
    if m.data is None:
        return [], ["What `fcos check` finds is left out: it looks at a folder of one's own, given as --data."]
    try:
        layout = find_dataset(m.data, m.format)
        found = audit(layout, format_named(layout.format).read, pictures=False)
    except FcosError as error:
        return [], [f"What `fcos check` finds is left out: {error}"]
    rows = [(KINDS[one.kind].title, one.part or "all", f"{one.count} of {one.of}", KINDS[one.kind].level)
            for one in found.findings]  # fmt: skip
    numbers["check"] = [
        {"kind": one.kind, "part": one.part, "count": one.count, "of": one.of} for one in found.findings
    ]
    heads = ("what fcos check finds in the labels", "part", "how many", "kind")
    return ([Table(heads, rows)], []) if rows else ([], ["A check of the labels finds nothing."])


def config(m: Material) -> Section:
    sha = sha256_of(fetch(m.weights))
    text = [f"Weights: {m.weights}, SHA-256 {sha}. The config as it was evaluated, the paths of this machine in it:"]
    numbers = {"weights": m.weights, "sha256": sha, "config": m.config, "selector": _selector(m)}
    return Section(text, listings={"config.yaml": m.config}, numbers=numbers)


def _selector(m: Material) -> dict[str, Any] | None:
    """How detections are selected."""
    node = m.cfg.get("model", {}).get("dense", {}).get("selector")
    return None if node is None else {str(key): value for key, value in node.items() if not str(key).startswith("_")}


def environment(m: Material) -> Section:
    found = dataclasses.asdict(take_inventory())
    versions = {"fcos_d2": fcos_d2.__version__, "detectron2": found["detectron2"], **found["versions"]}
    gpus = ", ".join(gpu["name"] for gpu in found["torch_gpus"]) or "none"
    memory = "unknown" if found["memory"] is None else memory_size(found["memory"])
    machine = {"system": system(), "GPU": gpus, "CPU cores": str(found["cores"]), "memory": memory,
               "device of the report": str(m.cfg.train.device)}  # fmt: skip
    tables = [
        Table(("package", "version"), [(name, str(version or "not installed")) for name, version in versions.items()]),
        Table(("machine", ""), list(machine.items())),
    ]
    return Section(tables=tables, numbers={"versions": versions, "machine": machine})
