"""Writes the config files: each variant's LazyConfig and its yacs twin, from the same rows.

A twin names three pieces, `_BASE_: [recipe, backbone, schedule]`, which are written from `RECIPES`, `BACKBONES` and
`SCHEDULES`. Nothing is stated twice, and a test compares the files with what this module writes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fcos_d2.config.compose import pixel_statistics
from fcos_d2.config.proposals import proposal_keys
from fcos_d2.config.yacs import yaml_of_recipe
from fcos_d2.modeling.backbone import BACKBONES, BackboneRow
from fcos_d2.zoo.proposals import PROPOSAL_RECIPES, PROPOSALS, ProposalVariant
from fcos_d2.zoo.recipes import RECIPES, Recipe
from fcos_d2.zoo.schedules import SCHEDULES, Schedule
from fcos_d2.zoo.variants import VARIANTS, Variant


def render() -> dict[Path, str]:
    """All generated config files: path relative to the config folder -> text."""
    recipes = RECIPES | PROPOSAL_RECIPES
    files = {Path("yaml", "recipes", f"{name}.yaml"): _dump(_recipe(r), r.source) for name, r in recipes.items()}
    files |= {Path("yaml", "backbones", f"{name}.yaml"): _dump(_backbone(r), r.source) for name, r in BACKBONES.items()}
    files |= {Path("yaml", "schedules", f"{name}.yaml"): _dump(_schedule(s), s.source) for name, s in SCHEDULES.items()}
    for variant in VARIANTS:
        files[variant.config] = _lazy(variant)
        files[variant.yaml] = _twin(variant)
    for row in PROPOSALS:
        files[row.config] = _lazy_proposals(row)
        files[row.yaml] = _bases(row) + _yaml(proposal_keys(row))
    return files


def write(root: Path) -> list[Path]:
    """Write all files below `root`; returns those that changed."""
    changed = []
    for path, text in render().items():
        target = root / path
        if target.is_file() and target.read_text(encoding="utf-8") == text:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        changed.append(path)
    return changed


def _lazy(v: Variant) -> str:
    call = f'compose(recipe="{v.recipe}", backbone="{v.backbone}", schedule="{v.schedule}")'
    line = f"model, dataloader, optimizer, lr_multiplier, train = {call}"
    if len(line) > 120:
        arguments = f'recipe="{v.recipe}", backbone="{v.backbone}", schedule="{v.schedule}"'
        line = f"model, dataloader, optimizer, lr_multiplier, train = compose(\n    {arguments}\n)"
    return f"from fcos_d2.config import compose\n\n{line}\n"


def _lazy_proposals(v: ProposalVariant) -> str:
    usual = {field.name: field.default for field in dataclasses.fields(v)}
    named = ["architecture", "generator", "recipe", "backbone", "schedule"]
    named += [name for name in ("fc_dim", "rois") if getattr(v, name) != usual[name]]
    body = "".join(f"    {name}={json.dumps(getattr(v, name))},\n" for name in named)
    start = "model, dataloader, optimizer, lr_multiplier, train = compose_proposals(\n"
    return f"from fcos_d2.config import compose_proposals\n\n{start}{body})\n"


def _bases(v: Variant) -> str:
    bases = f"../recipes/{v.recipe}.yaml", f"../backbones/{v.backbone}.yaml", f"../schedules/{v.schedule}.yaml"
    return "_BASE_: [" + ", ".join(bases) + "]\nVERSION: 2\n"


def _twin(v: Variant) -> str:
    text = _bases(v)
    recipe, row = RECIPES[v.recipe], BACKBONES[v.backbone]
    if recipe.input_format == "RGB" and (row.pixel_mean or row.pixel_std):  # the backbone's piece has them as BGR
        mean, std = pixel_statistics(recipe, row)
        rgb = {"PIXEL_MEAN": mean, "PIXEL_STD": std}
        text += _yaml({"MODEL": rgb})
    return text


def _recipe(recipe: Recipe) -> dict[str, Any]:
    solver = recipe.solver
    return {
        "MODEL": {
            "META_ARCHITECTURE": "FCOS",
            "PIXEL_MEAN": list(recipe.pixel_mean),
            "PIXEL_STD": list(recipe.pixel_std),
            "FCOS": yaml_of_recipe(recipe),
        },
        "INPUT": {"FORMAT": recipe.input_format},
        "SOLVER": {
            "BASE_LR": solver["base_lr"],
            "BIAS_LR_FACTOR": solver["bias_lr_factor"],
            "WEIGHT_DECAY_BIAS": solver["weight_decay_bias"],
            "WEIGHT_DECAY_NORM": solver["weight_decay_norm"],
            "WARMUP_METHOD": solver["warmup_method"],
            "WARMUP_FACTOR": solver["warmup_factor"],
            "WARMUP_ITERS": solver["warmup_iters"],
        },
    }


def _backbone(row: BackboneRow) -> dict[str, Any]:
    tree: dict[str, Any] = {
        "MODEL": {
            "WEIGHTS": row.weights,
            "BACKBONE": {"NAME": row.builder},
            "FPN": {"IN_FEATURES": list(row.features), "OUT_CHANNELS": row.channels},
        }
    }
    for argument, value in {**row.arguments, "out_features": row.features}.items():
        if argument in row.yaml:
            _set(tree, row.yaml[argument], value)
    for key, value in (("PIXEL_MEAN", row.pixel_mean), ("PIXEL_STD", row.pixel_std)):
        if value is not None:
            tree["MODEL"][key] = list(value)
    return tree


def _schedule(plan: Schedule) -> dict[str, Any]:
    return {
        "DATASETS": {"TRAIN": ["coco_2017_train"], "TEST": ["coco_2017_val"]},
        "INPUT": {
            "MIN_SIZE_TRAIN": list(plan.train_sizes),
            "MIN_SIZE_TRAIN_SAMPLING": plan.sampling,
            "MAX_SIZE_TRAIN": plan.max_train_size,
            "MIN_SIZE_TEST": plan.test_size,
            "MAX_SIZE_TEST": plan.max_test_size,
        },
        "SOLVER": {"IMS_PER_BATCH": plan.batch_size, "MAX_ITER": plan.max_iter, "STEPS": list(plan.steps)},
    }


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for name in parents:
        tree = tree.setdefault(name, {})
    tree[last] = value


class _Dumper(yaml.SafeDumper):
    """Mappings in blocks, sequences on one line."""


for _sequence in (list, tuple):
    _Dumper.add_representer(
        _sequence, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)
    )


def _dump(tree: Mapping[str, Any], source: str) -> str:
    return f"# {source}\n{_yaml(tree)}"


def _yaml(tree: Mapping[str, Any]) -> str:
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=120)
