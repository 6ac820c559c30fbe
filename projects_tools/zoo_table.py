"""The table of variants for docs/, and the costs that go into it."""

from __future__ import annotations

import json
from collections.abc import Iterable

import torch
from detectron2.config import instantiate

from fcos_d2 import zoo
from fcos_d2.files import size_text
from fcos_d2.modeling.cost import cost
from fcos_d2.zoo.addresses import Address
from fcos_d2.zoo.recipes import RECIPES
from fcos_d2.zoo.schedules import SCHEDULES

_HEAD = """# Model zoo

{count} variants, and below them networks that propose regions with FCOS, each as a LazyConfig file in `configs/` and a
yacs twin in `configs/yaml/`. `fcos zoo` lists them, `fcos zoo NAME` shows one. This table is written by
`projects_tools/write_configs.py`.

AP and AP test-dev are what the publisher reports for COCO (minival or val2017, and test-dev), in percent; no weights
were trained or evaluated here. Parameters are all learned numbers. GFLOPs are 1e9 multiply-adds of the convolutions at
the variant's test size: shorter side 800 and longer side 1333 pixels unless another size is given, padded.

No weights are part of this project. Those that a program can fetch come by the variant's name, `fcos detect IMAGE
--model NAME`; see [weights.md](weights.md). "by hand": a browser may fetch them. Code licences are named below each
family's title; weights have their publisher's terms. "–": nobody has published any, as for all of FAD's.
"""


_PROPOSALS = """
## Region proposals and two-stage detectors

`configs/proposals/`; nobody has published weights of these. See [proposals.md](proposals.md).

| name | architecture | proposals by | recipe | backbone | schedule |
| --- | --- | --- | --- | --- | --- |
"""


def count_costs(variants: Iterable[zoo.Variant] = zoo.VARIANTS) -> dict[str, dict[str, float]]:
    """Full name -> cost of each variant, see `zoo.costs`."""
    table, counted = {}, {}
    for variant in variants:
        plan, recipe = SCHEDULES[variant.schedule], RECIPES[variant.recipe]
        head = recipe.head_name, tuple(recipe.head.items()), recipe.features, recipe.top_levels
        key = variant.backbone, head, plan.test_size, plan.max_test_size
        if key not in counted:  # variants that differ in training only cost the same
            with torch.device("meta"):
                model = instantiate(zoo.get_config(variant.full_name).model)
            counted[key] = cost(model, plan.test_size, plan.max_test_size)
        c = counted[key]
        table[variant.full_name] = {
            "parameters": c.parameters,
            "gflops": round(c.gflops, 1),
            "height": c.height,
            "width": c.width,
        }
    return table


def costs_json(costs: dict[str, dict[str, float]]) -> str:
    """`zoo/costs.json`: one line for each variant."""
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in costs.items())
    return "{\n" + lines + "\n}\n"


def markdown(costs: dict[str, dict[str, float]]) -> str:
    """`docs/zoo.md`."""
    parts = [_HEAD.format(count=len(zoo.VARIANTS))]
    for key, family in zoo.FAMILIES.items():
        variants = [v for v in zoo.VARIANTS if v.family == key]
        if not variants:
            continue
        origin = f"[{family.repository}](https://github.com/{family.repository}), " if family.repository else ""
        parts.append(
            f"\n## {family.title}\n\n`configs/{key}/`; {origin}licence: {family.licence}.\n\n"
            "| name | recipe | backbone | schedule | AP | AP test-dev | params (M) | GFLOPs | weights |\n"
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        )
        parts += [_row(v, costs[v.full_name]) for v in variants]
    parts.append(_PROPOSALS)
    for p in zoo.PROPOSALS:
        cells = p.name, p.architecture, p.generator, p.recipe, p.backbone, p.schedule
        parts.append("| " + " | ".join(cells) + " |\n")
    return "".join(parts)


def _row(v: zoo.Variant, c: dict[str, float]) -> str:
    size = "" if c["height"] == 800 else f" at {c['height']}x{c['width']}"
    cells = (
        v.name,
        v.recipe,
        v.backbone,
        v.schedule,
        _number(v.ap),
        _number(v.ap_test_dev),
        f"{c['parameters'] / 1e6:.1f}",
        f"{c['gflops']:.1f}{size}",
        _weights(zoo.published(v.full_name)),
    )
    return "| " + " | ".join(cells) + " |\n"


def _weights(row: Address | None) -> str:
    if row is None:
        return "–"
    return f"[{'by hand' if row.is_dead else size_text(row.size)}]({row.url})"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
