"""`load`, `export` and `convert`: from a file to our tensors, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import zoo
from ..engine.checkpoint import save
from ..engine.configuration import dump_config, parse_config
from ..errors import FcosError
from . import adjust
from .adelaidet import ADELAIDET
from .detectron2 import DETECTRON2
from .family import Family
from .fcos import FCOS_CORE, HRNET_FCOS, VOVNET_FCOS
from .fcos_plus import FCOS_PLUS
from .files import read
from .mapping import Rule, fields_of, some, to_ours, to_theirs
from .mmdet import MMDET
from .nas_fcos import NAS_FCOS
from .report import Report
from .target import (
    AVERAGE,
    Target,
    Traits,
    fitting,
    gap,
    meaning,
    named_like,
    pixels_of,
    target_of,
    traits_of,
    variant_target,
)
from .torchvision import TORCHVISION

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        FCOS_CORE,
        FCOS_PLUS,
        ADELAIDET,
        MMDET,
        TORCHVISION,
        DETECTRON2,
        VOVNET_FCOS,
        HRNET_FCOS,
        NAS_FCOS,
    )
}
_ALIASES = {"fcos": "fcos_core", "tianzhi": "fcos_core", "mmdetection": "mmdet"}
# This package's own checkpoints: every name stays.
OURS = Family("fcos_d2", "fcos_d2", (Rule("{*}", "{*}"),), "dense.head.")


@dataclass(frozen=True)
class Imported:
    """Weights under our names.

    Attributes:
        state_dict: our name -> tensor; complete for every variant in `variants`.
        report: what was done.
        family: whose names the file had; "fcos_d2" for ours.
        variants: rows of the zoo that want exactly these tensors.
        variant: the one that was chosen; `None` where nothing decides, or where it was read for a config of one's own.
        unused: tensors of the file that the model does not keep, under their own names.
        around: what else the file holds.
    """

    state_dict: dict[str, Tensor]
    report: Report
    family: str
    variants: tuple[zoo.Variant, ...] = ()
    variant: zoo.Variant | None = None
    unused: Mapping[str, Tensor] = field(default_factory=dict)
    around: Mapping[str, Any] = field(default_factory=dict)

    def _chosen(self) -> zoo.Variant:
        if self.variant is not None:
            return self.variant
        if not self.variants:
            raise FcosError(f"{self.report.file} was read for a config that has no name in the zoo.")
        raise FcosError(
            f"{self.report.file} fits several variants, whose weights have the same names and shapes: say which it is "
            f"(config=...), {' or '.join(v.full_name for v in self.variants)}."
        )

    @property
    def config_name(self) -> str:
        """Name of the variant.

        Raises:
            FcosError: several fit and nothing decides; the message lists them.
        """
        return self._chosen().full_name

    @property
    def recipe(self) -> str:
        """Name of its recipe; raises as `config_name` does."""
        return self._chosen().recipe

    @property
    def backbone(self) -> str:
        """Name of its backbone; raises as `config_name` does."""
        return self._chosen().backbone


def load(path: str | Path, family: str | None = None, config: Any = None, num_classes: int | None = None) -> Imported:
    """Read a published checkpoint, or one of ours, on the CPU; nothing in the file is run.

    Args:
        path: .pth file, or .pkl of Detectron2.
        family: whose it is; by default recognised by its names.
        config: what the weights are for: the name of a variant, a config, or a model. Without it, every published
            variant of the family is tried.
        num_classes: of the result. 80 picks COCO's classes out of torchvision's 91; otherwise it must be the file's.
    Raises:
        FcosError: the file is damaged, hostile, of no known family, incomplete, or for another model or other classes.
    """
    path = Path(path)
    tensors, around = read(path)
    families = _recognise(tensors, path, family)
    row, report = families[0], Report(str(path), families[0].name)
    unused = {name: tensor for name, tensor in tensors.items() if _is_ignored(name, row)}
    tensors = {name: tensor for name, tensor in tensors.items() if name not in unused}
    report.ignored = list(unused)
    state = _rename(tensors, row, path, report)
    classes = _count_classes(state, path)

    # 1. What the weights are for, and what they come from.
    if config is None and row is OURS and isinstance(around.get("config"), str):
        config = parse_config(around["config"], str(path))
    target = None if config is None else target_of(config, num_classes)
    if target and target.variant and _is_of(target.variant, families):
        fits = source = [target.variant]
    else:
        source = _published(families, state, classes) if target is None or row is not OURS else []
        fits = source if target is None else [target.variant] if target.variant else []
    if target is None and not fits:
        raise _fits_nothing(path, families, state, classes)
    chosen = _choose(fits, path, target, report)
    target = target or variant_target(chosen or fits[0], num_classes or classes)

    # 2. What the source means differently.
    state = _fit_classes(state, classes, row, path, target, report)
    state, done = adjust.fill_neutral(state, target.shapes, target.starts)
    report.done += done
    state, counters, done = adjust.fit_counters(state, target.shapes)
    report.done += done
    unused |= to_theirs(counters, row.rules).tensors
    if row is not OURS:
        state = _fit_pixels(state, source, target, report)
    if difference := gap(state, target):
        raise FcosError(f"{path} does not suit {target.title}: {difference}.")

    # 3. What is to be said.
    if chosen:
        row = next((f for f in families if f.zoo == chosen.family), row)
    elif config is None:
        report.same_names = tuple(f.name for f in families if any(v.family == f.zoo for v in fits))
    report.family = row.name
    report.variants = tuple(v.full_name for v in fits)
    report.num_classes, report.tensors = target.num_classes, len(state)
    report.facts += _facts(row, [target] if chosen or not fits else [variant_target(v, classes) for v in fits])
    return Imported(state, report, row.name, tuple(fits), chosen, unused, around)


def family_of(name: str) -> Family:
    """A row of `FAMILIES`, by its name or an alias.

    Raises:
        FcosError: there is none; the message lists them.
    """
    found = FAMILIES.get(_ALIASES.get(name, name))
    if found is None:
        raise FcosError(f"There is no family {name!r} of checkpoints; choose one of: {', '.join(FAMILIES)}.")
    return found


# Steps of `load`


def _recognise(tensors: Mapping[str, Tensor], path: Path, family: str | None) -> tuple[Family, ...]:
    """The families whose names these are; several if they share them.

    Raises:
        FcosError: none, or not the one asked for.
    """
    if any(name.startswith(OURS.mark) for name in tensors):
        if family not in (None, OURS.name):
            raise FcosError(f"{path} is a checkpoint of fcos_d2 itself, not of {family}.")
        return (OURS,)
    marked = tuple(f for f in FAMILIES.values() if any(name.startswith(f.mark) for name in tensors))
    if family is None:
        if not marked:
            marks = ", ".join(f"{f.mark}* ({f.name})" for f in FAMILIES.values())
            raise FcosError(
                f"{path} is of no known FCOS family: the first of its {len(tensors)} tensors is "
                f"{next(iter(tensors))!r}, and none is called {marks}; load_backbone reads backbones without a detector."
            )
        return marked
    row = family_of(family)
    if row not in marked:
        instead = f", but like {' or '.join(f.name for f in marked)}" if marked else ""
        raise FcosError(f"{path} does not look like a checkpoint of {row.name} (no tensor {row.mark}*){instead}.")
    return (row,)


def _is_ignored(name: str, row: Family) -> bool:
    return any(fields_of(template, name) is not None for template in row.ignored)


def _rename(tensors: Mapping[str, Tensor], row: Family, path: Path, report: Report) -> dict[str, Tensor]:
    try:
        renamed = to_ours(tensors, row.rules)
    except FcosError as error:
        raise FcosError(f"{path}: {error}") from error
    if renamed.left_over:
        raise FcosError(
            f"{path} looks like a checkpoint of {row.name}, but {len(renamed.left_over)} of its tensors are of no FCOS, "
            f"the first {renamed.left_over[0]}."
        )
    report.renamed = sum(name not in renamed.tensors for name in tensors)
    state, report.done = adjust.change_epsilon(renamed.tensors, renamed.epsilons)
    return state


def _count_classes(state: Mapping[str, Tensor], path: Path) -> int:
    wanted = ("dense.head.cls_logits.bias", "dense.head.bbox_pred.bias")
    lacking = [name for name in wanted if name not in state or state[name].dim() != 1]
    if lacking:
        raise FcosError(f"{path} is incomplete: it has no {' and no '.join(lacking)}.")
    points = max(len(state[wanted[1]]) // 4, 1)
    return len(state[wanted[0]]) // points


def _is_of(variant: zoo.Variant, families: Sequence[Family]) -> bool:
    return families[0] is OURS or any(variant.family == f.zoo for f in families)


def _published(families: Sequence[Family], state: Mapping[str, Tensor], classes: int) -> list[zoo.Variant]:
    rows = [v for v in zoo.VARIANTS if _is_of(v, families)]
    return fitting(state, rows, classes)[0]


def _fits_nothing(path: Path, families: Sequence[Family], state: Mapping[str, Tensor], classes: int) -> FcosError:
    rows = [v for v in zoo.VARIANTS if _is_of(v, families)]
    _, nearest, least = fitting(state, rows, classes)
    near = f"; the nearest, {nearest.full_name}, differs by {least}" if nearest else ""
    return FcosError(
        f"{path} has the names of {families[0].name}, but fits none of its published variants: pass the config it was "
        f"trained with{near}."
    )


def _choose(fits: Sequence[zoo.Variant], path: Path, target: Target | None, report: Report) -> zoo.Variant | None:
    """The variant, if the caller, the file's name or the tensors decide; says which of them did."""
    chosen = None
    if target is not None:
        chosen, report.chosen_by = target.variant, "asked for"
    elif len(fits) == 1:
        chosen, report.chosen_by = fits[0], "the only one with these tensors"
    elif named := named_like(path, fits):
        chosen, report.chosen_by = named[0], f"by the name of the file, {path.name}"
    elif len({meaning(v) for v in fits}) == 1:
        chosen, report.chosen_by = fits[0], "the others detect alike and differ in training only"
    report.config_name = chosen.full_name if chosen else None
    return chosen


def _fit_classes(
    state: dict[str, Tensor], classes: int, row: Family, path: Path, target: Target, report: Report
) -> dict[str, Tensor]:
    wanted, channels = target.num_classes, row.channels_of_classes
    if wanted == classes:
        return state
    if channels and classes > max(channels) and wanted == len(channels):
        report.done.append(f"class channels {classes} -> {wanted}: those of COCO's {wanted} classes, in their order")
        return adjust.choose_classes(state, channels, classes)
    raise FcosError(
        f"{path} predicts {classes} classes, but {target.title} has {wanted}: set model.num_classes={classes} "
        "(MODEL.FCOS.NUM_CLASSES) to use it as it is."
    )


def _fit_pixels(
    state: dict[str, Tensor], source: Sequence[zoo.Variant], target: Target, report: Report
) -> dict[str, Tensor]:
    """Let the first convolution read what the model is given."""
    known = {pixels_of(v) for v in source}
    if target.pixels in known:
        return state
    if len(known) != 1:
        report.facts.append("which pixels the weights expect is not known from the file: nothing was changed")
        return state
    (theirs,) = known
    state, done, facts = adjust.change_pixels(state, theirs, target.pixels)
    report.done += done
    report.facts += facts
    return state


def _facts(row: Family, targets: Sequence[Target]) -> list[str]:
    """What the models have in common that a user of the weights should know."""
    facts = list(row.notes)
    if len({t.pixels for t in targets}) == 1:
        facts.append(f"input: {targets[0].pixels}")
    traits = [t.traits for t in targets if t.traits]
    if len(traits) < len(targets):
        return facts
    words = {
        "locations": {"center": "at cell centers", "corner": "at cell corners, step = padded size // feature size"},
        "stride": {True: "in the 1x1 of bottlenecks (caffe style)", False: "in the 3x3 of bottlenecks (pytorch style)"},
    }
    common: dict[str, set[str | None]] = {
        "locations": {words["locations"][t.origin] for t in traits},
        "ltrb": {f"{t.activation[0]}, in {t.activation[1]}s" for t in traits},
        "quality": {f"beside the {t.quality_on} tower" for t in traits},
        "stride": {words["stride"].get(t.stride_in_1x1) for t in traits},
    }
    return facts + [
        f"{name}: {value}" for name, values in common.items() if len(values) == 1 for value in values if value
    ]


# Back


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
        config: what the tensors belong to: name of a variant, config or model. With it, what the other project cannot do
            is an error; without it only names are checked.
        num_classes: 91 spreads COCO's 80 classes to torchvision's channels.
        unused: tensors that `load` found no place for; they are put back.
    Raises:
        FcosError: the other project cannot express this model.
    """
    row = family_of(family)
    traits = None if config is None else target_of(config).traits
    return _export(state_dict, row, traits, num_classes, unused or {}, Report("", row.name))


def _export(
    state_dict: Mapping[str, Tensor],
    row: Family,
    traits: Traits | None,
    num_classes: int | None,
    unused: Mapping[str, Tensor],
    report: Report,
) -> dict[str, Tensor]:
    for sentence in _cannot(row, traits, state_dict):
        raise FcosError(f"{row.name} cannot express this model: {sentence}.")
    state = {name: tensor for name, tensor in state_dict.items() if name != AVERAGE and not _is_ignored(name, OURS)}
    if not any(rule.stacked is not None for rule in row.rules):
        state.pop("dense.head.scales", None)
    classes = _count_classes(state, Path("The state dict"))
    if num_classes not in (None, classes):
        channels = row.channels_of_classes
        if channels is None or len(channels) != classes or num_classes <= max(channels):
            raise FcosError(f"{row.name} cannot have {num_classes} classes of a model that has {classes}.")
        state = adjust.spread_classes(state, channels, num_classes)
        report.done.append(
            f"class channels {classes} -> {num_classes}: COCO's classes at their ids, the others never score"
        )
    epsilons = to_theirs(state, row.rules).epsilons
    state, done = adjust.change_epsilon(state, epsilons, back=True)
    report.done += done
    renamed = to_theirs(state, row.rules)
    if renamed.left_over:
        raise FcosError(f"{row.name} cannot express this model: it has nothing like {some(renamed.left_over)}.")
    tensors = renamed.tensors
    if row.counters:
        tensors, done = adjust.add_counters(tensors, unused)
        report.done += done
    report.family, report.num_classes, report.tensors = row.name, num_classes or classes, len(tensors)
    report.renamed = sum(name not in state_dict for name in tensors)
    return tensors


def _cannot(row: Family, traits: Traits | None, state: Mapping[str, Tensor]) -> list[str]:
    """Why a project cannot express a model, a sentence each."""
    reasons = []
    scales = state.get("dense.head.scales")
    if scales is not None and not any(r.stacked is not None for r in row.rules) and bool((scales != 1).any()):
        reasons.append("it has no scales, and those of the model are not 1")
    levels = [name for name in state if ".levels.0." in name and name.startswith("dense.head.")]
    if levels:
        own = any(name.endswith(".levels.0.weight") for name in levels)
        if row.level_norms != ("own" if own else "shared"):
            reasons.append(f"it has no batch norms whose levels have {'an own' if own else 'a shared'} weight and bias")
    if traits is None:
        return reasons
    if traits.activation not in row.activations:
        known = " or ".join(f"{a} in {unit}s" for a, unit in row.activations)
        reasons.append(f"its raw ltrb is {traits.activation[0]} in {traits.activation[1]}s, and it knows {known} only")
    if traits.quality_on not in row.quality_on:
        reasons.append(f"its quality branch is on the {traits.quality_on} tower")
    if traits.origin != row.origin:
        reasons.append(f"its locations have the origin {traits.origin!r} instead of {row.origin!r}")
    if traits.stride_in_1x1 is not None and traits.stride_in_1x1 not in row.stride_in_1x1:
        reasons.append("its bottlenecks stride in their 1x1")
    return reasons


def convert(
    path: str | Path,
    output: str | Path,
    family: str | None = None,
    to: str | None = None,
    config: Any = None,
    num_classes: int | None = None,
) -> Report:
    """Convert a checkpoint file to ours, or to another project's; the output is written whole or not at all.

    Args:
        path: what to read; see `load`.
        output: file to write.
        family: whose `path` is; by default recognised.
        to: family to write; by default ours.
        config: what the weights belong to; needed only where nothing else decides.
        num_classes: 80 picks COCO's classes out of torchvision's 91; with `to="torchvision"`, 91 does the reverse.
    Returns:
        What was done.
    Raises:
        FcosError: as `load` and `export`; or `output` is `path`.
    """
    path, output = Path(path), Path(output)
    if output.exists() and output.resolve() == path.resolve():
        raise FcosError(f"{output} is the file that is read: write to another one.")
    if to is None:
        imported = load(path, family, config, num_classes)
        save(output, _checkpoint(imported, config))
        return imported.report
    row = family_of(to)
    imported = load(path, family, config)
    traits = traits_of(imported.variant) if imported.variant else None
    if config is None and isinstance(imported.around.get("config"), str):
        traits = target_of(parse_config(imported.around["config"], str(path))).traits
    report = imported.report
    unused = imported.unused if imported.family == row.name else _kept(imported, row)
    tensors = _export(imported.state_dict, row, traits, num_classes, unused, report)
    if traits is None:
        report.facts.append(
            f"which variant it is was not decided: that {row.name} can express it was checked by names only"
        )
    save(output, row.wrap(tensors))
    return report


def _checkpoint(imported: Imported, config: Any) -> dict[str, Any]:
    """What our own file holds."""
    payload: dict[str, Any] = {"model": imported.state_dict}
    if imported.variant is not None:
        cfg = zoo.get_config(imported.variant.full_name)
        cfg.model.num_classes = imported.report.num_classes
        payload["config"] = dump_config(cfg)
    elif isinstance(imported.around.get("config"), str):
        payload["config"] = imported.around["config"]
    if imported.family != OURS.name:
        payload["imported"] = {"family": imported.family, "unused": dict(imported.unused)}
    return payload


def _kept(imported: Imported, row: Family) -> Mapping[str, Tensor]:
    """What an earlier import into our format put aside, if it came from the same family."""
    before = imported.around.get("imported") or {}
    return before.get("unused", {}) if before.get("family") == row.name else {}
