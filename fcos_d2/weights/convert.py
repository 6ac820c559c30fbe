"""`export` and `convert`: from our tensors to a file of another project, or of ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import zoo
from ..config.load import load_config
from ..config.stored import dump_config
from ..errors import FcosError
from . import adjust
from .expected import AVERAGE, Traits, target_of, variant_target
from .families import OURS, family_of
from .families.family import Family
from .families.torchvision import TORCHVISION, coco_names
from .published import Imported, count_classes, load
from .report import Report
from .rules import some, to_theirs
from .saving import save
from .wiring import told

# One convolution makes each level.
_LEVEL = re.compile(r"backbone\.(fpn_output\d+|top_block\.p\d|output\.\d+)\.weight")


def export(
    state_dict: Mapping[str, Tensor],
    family: str,
    config: Any = None,
    num_classes: int | None = None,
    unused: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Our tensors under another project's names, as its own model loads them.

    Args:
        state_dict: our names.
        family: name in `FAMILIES`.
        config: what the tensors belong to: name of a variant, config or model. With it, what the other project cannot
            do is an error; without it only names are checked.
        num_classes: 91 spreads COCO's 80 classes to torchvision's channels.
        unused: tensors that `load` found no place for; they are put back.
    Raises:
        FcosError: the other project cannot express this model.
    """
    traits = None if config is None else target_of(config).traits
    return _export(state_dict, family_of(family), traits, num_classes, unused or {}, Report("", family))


def _export(
    state_dict: Mapping[str, Tensor],
    row: Family,
    traits: Traits | None,
    num_classes: int | None,
    unused: Mapping[str, Tensor],
    report: Report,
) -> dict[str, Tensor]:
    if reasons := _cannot(row, traits, state_dict):
        raise FcosError(f"{row.name} cannot express this model: {reasons[0]}.")
    state = {name: tensor for name, tensor in state_dict.items() if name != AVERAGE and not OURS.ignores(name)}
    wanted = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if row.tower_bias:
        wanted |= adjust.tower_biases(wanted)
    if row.has_scales:
        wanted[adjust.SCALES] = (sum(bool(_LEVEL.fullmatch(name)) for name in state),)
    else:
        state.pop(adjust.SCALES, None)
        wanted.pop(adjust.SCALES, None)
    state = adjust.fill_neutral(state, wanted, {}, report, "model")
    classes = count_classes(state, Path("The state dict"))
    if num_classes not in (None, classes):
        channels = row.channels_of_classes
        if channels is None or len(channels) != classes or num_classes <= max(channels):
            raise FcosError(f"{row.name} cannot have {num_classes} classes of a model that has {classes}.")
        state = adjust.spread_classes(state, channels, num_classes)
        done = f"class channels {classes} -> {num_classes}: COCO's classes at their ids, the others never score"
        report.done.append(done)
    epsilons = to_theirs(state, row.rules).epsilons
    state, steps = adjust.change_epsilon(state, epsilons, back=True)
    report.done += steps
    renamed = to_theirs(state, row.rules)
    if renamed.left_over:
        raise FcosError(f"{row.name} cannot express this model: it has nothing like {some(renamed.left_over)}.")
    tensors = {**unused, **renamed.tensors}
    if row.counters:  # of every batch norm, as its frozen ones are batch norms, too
        norms = [name.removesuffix(".running_var") for name in tensors if name.endswith(".running_var")]
        tensors, _ = adjust.fit_counters(tensors, [*tensors, *(norm + adjust.COUNTER for norm in norms)], report)
    report.family, report.num_classes, report.tensors = row.name, num_classes or classes, len(tensors)
    report.renamed = sum(name not in state_dict for name in tensors)
    return tensors


def _cannot(row: Family, traits: Traits | None, state: Mapping[str, Tensor]) -> list[str]:
    """Why a project cannot express a model, a sentence each."""
    reasons = []
    scales = state.get(adjust.SCALES)
    if scales is not None and not row.has_scales and bool((scales != 1).any()):
        reasons.append("it has no scales, and those of the model are not 1")
    levels = [name for name in state if ".levels.0." in name and name.startswith("dense.head.")]
    if levels:
        own = any(name.endswith(".levels.0.weight") for name in levels)
        if row.level_norms != ("own" if own else "shared"):
            reasons.append(f"it has no batch norms whose levels have {'an own' if own else 'a shared'} weight and bias")
    if traits is None:
        return reasons
    activation, unit = traits.activation
    known = " or ".join(f"{a} in {unit}s" for a, unit in row.activations)
    checks = {
        f"its raw ltrb is {activation} in {unit}s, and it knows {known} only": traits.activation in row.activations,
        f"its quality branch is on {_tower(traits.quality_on)}": traits.quality_on in row.quality_on,
        f"its locations have the origin {traits.origin!r} instead of {row.origin!r}": traits.origin == row.origin,
        "its bottlenecks stride in their 1x1": traits.stride_in_1x1 in (None, *row.stride_in_1x1),
    }
    return reasons + [sentence for sentence, fine in checks.items() if not fine]


def _tower(quality_on: str) -> str:
    return "no tower, for it has none" if quality_on == "none" else f"the {quality_on} tower"


def convert(
    path: str | Path,
    output: str | Path,
    family: str | None = None,
    to: str | None = None,
    config: Any = None,
    num_classes: int | None = None,
    genotype: str | Path | None = None,
) -> Report:
    """Convert a checkpoint file to ours, or to another project's; the output is written whole or not at all.

    Args:
        path: what to read; see `load`.
        output: file to write.
        family: whose `path` is; by default recognised.
        to: family to write; by default ours.
        config: what the weights belong to; needed only where nothing else decides.
        num_classes: 80 picks COCO's classes out of torchvision's 91; with `to="torchvision"`, 91 does the reverse.
        genotype: of a searched head in `path`, see `load`.
    Returns:
        What was done.
    Raises:
        FcosError: as `load` and `export`; or `output` is `path`.
    """
    path, output = Path(path), Path(output)
    if output.exists() and output.resolve() == path.resolve():
        raise FcosError(f"{output} is the file that is read: write to another one.")
    if to is None:
        imported = load(path, family, config, num_classes, genotype)
        save(output, checkpoint_of(imported, config))
        return imported.report
    row = family_of(to)
    imported = load(path, family, config, None if row.channels_of_classes else num_classes, genotype)
    if imported.variant is None and imported.variants:
        targets = (variant_target(variant, imported.report.num_classes) for variant in imported.variants)
        if len({not _cannot(row, target.traits, imported.state_dict) for target in targets}) > 1:
            _ = imported.config_name  # raises: the caller has to choose
    unused, before = imported.unused, imported.extra.get("imported")
    if imported.family != row.name:  # then perhaps an earlier import into our format has put something aside
        unused = before.get("unused", {}) if isinstance(before, dict) and before.get("family") == row.name else {}
    tensors = _export(imported.state_dict, row, imported.traits, num_classes, unused, imported.report)
    if imported.traits is None:
        imported.report.facts.append(f"that {row.name} can express the model was checked by names only")
    imported.report.facts += told(imported.traits.genotype if imported.traits else "")
    save(output, {**row.beside, row.wrapper: tensors} if row.wrapper else tensors)
    return imported.report


def checkpoint_of(imported: Imported, config: Any) -> dict[str, Any]:
    """What our own file holds: weights, config and class names, as far as they are known."""
    payload: dict[str, Any] = {"model": imported.state_dict}
    if imported.variant is not None:
        cfg = zoo.get_config(imported.variant.full_name)
        cfg.model.num_classes = imported.report.num_classes
        payload["config"] = dump_config(cfg)
    elif imported.config is not None:
        payload["config"] = dump_config(imported.config)
    elif isinstance(config, (str, Path)):
        payload["config"] = dump_config(load_config(config))
    elif isinstance(imported.extra.get("config"), str):
        payload["config"] = imported.extra["config"]
    if imported.family == OURS.name:
        payload |= {key: imported.extra[key] for key in ("class_names", "thresholds") if key in imported.extra}
    if imported.family == TORCHVISION.name and (names := coco_names(imported.report.num_classes)):
        payload["class_names"] = names
    if imported.family != OURS.name:
        payload["imported"] = {"family": imported.family, "unused": dict(imported.unused)}
    return payload
