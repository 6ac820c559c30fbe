"""`load`: from a file of another project to our tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import zoo
from ..config.stored import parse_config
from ..errors import FcosError
from . import adjust
from .expected import (
    Target,
    describe,
    detects_alike,
    fitting,
    named_like,
    pixels_of,
    suit_pixels,
    target_of,
    traits_of,
    variant_target,
    without_counters,
)
from .families import FAMILIES, OURS, families_of, family_of
from .families.family import Family
from .read import Weights, read, weights_of
from .report import Report
from .rules import Difference, Renamed, some, to_ours, to_theirs


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
        extra: what else the file holds.
    """

    state_dict: dict[str, Tensor]
    report: Report
    family: str
    variants: tuple[zoo.Variant, ...] = ()
    variant: zoo.Variant | None = None
    unused: Mapping[str, Tensor] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def config_name(self) -> str:
        """Name of the variant.

        Raises:
            FcosError: several fit and nothing decides; the message lists them.
        """
        if self.variant is not None:
            return self.variant.full_name
        if not self.variants:
            raise FcosError(f"{self.report.file} was read for a config that has no name in the zoo.")
        raise FcosError(
            f"{self.report.file} fits several variants, whose weights have the same names and shapes: say which it is "
            f"(config=...), {' or '.join(v.full_name for v in self.variants)}."
        )

    @property
    def recipe(self) -> str:
        """Name of its recipe; raises as `config_name` does."""
        return zoo.find(self.config_name).recipe

    @property
    def backbone(self) -> str:
        """Name of its backbone; raises as `config_name` does."""
        return zoo.find(self.config_name).backbone


def load(
    source: str | Path | Mapping[str, Any],
    family: str | None = None,
    config: Any = None,
    num_classes: int | None = None,
) -> Imported:
    """Read a published checkpoint, or one of ours, on the CPU; nothing in the file is run.

    Args:
        source: .pth file, .pkl of Detectron2, or what was read from one.
        family: whose it is; by default recognised by its names.
        config: what the weights are for: the name of a variant, a config, or a model. Without it, every published
            variant of the family is tried.
        num_classes: of the result. 80 picks COCO's classes out of torchvision's 91; otherwise it must be the file's.
    Raises:
        FcosError: the file is damaged, hostile, of no known family, incomplete, or for another model or other classes.
    """
    weights = weights_of(source, "the state dict") if isinstance(source, Mapping) else read(source)
    return imported(weights, family, config, num_classes)


def imported(
    weights: Weights, family: str | None = None, config: Any = None, num_classes: int | None = None
) -> Imported:
    """The same of weights that were read."""
    path, tensors = Path(weights.path), weights.chosen()
    families, renamed, unused = _recognise(tensors, path, family)
    row = families[0]
    report = Report(str(path), row.name, ignored=list(unused), class_names=weights.class_names)
    report.facts += ["the averaged weights (ema) of the training"] * (weights.averages is not None)
    state, report.done = adjust.change_epsilon(renamed.tensors, renamed.epsilons)
    classes = count_classes(state, path)
    rows = [v for v in zoo.VARIANTS if row is OURS or any(v.family == f.zoo for f in families)]
    target = _asked_for(weights, row, config, num_classes)
    if target is not None:
        chosen, report.chosen_by = target.variant, "asked for"
        fits = [chosen] if chosen else []
        published = fits if chosen in rows else [] if row is OURS else fitting(state, rows, classes)[0]
    else:
        fits, nearest, least = fitting(state, rows, classes)
        if not fits:
            raise _fits_nothing(path, row, nearest, least)
        chosen, report.chosen_by = _choose(fits, path)
        target, published = variant_target(chosen or fits[0], num_classes or classes), fits
    state, dropped = _adapt(state, row, target, published, classes, report)
    if chosen:
        row = next((f for f in families if f.zoo == chosen.family), row)
        report.config_name = chosen.full_name
    elif fits:
        report.same_names = tuple(f.name for f in families if any(v.family == f.zoo for v in fits))
    report.family, report.variants = row.name, tuple(v.full_name for v in fits)
    report.num_classes, report.tensors = target.num_classes, len(state)
    report.renamed = sum(name not in tensors for name in state)
    report.facts += [
        *row.notes,
        *describe([target] if chosen or not fits else [variant_target(v, classes) for v in fits]),
    ]
    known = {traits_of(v) for v in published}
    if len(known) == 1 and target.traits not in (None, *known):
        report.facts.append(f"trained for another recipe: {known.pop()}; the config has {target.traits}")
    return Imported(state, report, report.family, tuple(fits), chosen, {**unused, **dropped}, weights.extra)


def _asked_for(weights: Weights, row: Family, config: Any, num_classes: int | None) -> Target | None:
    """The model that the caller names, or the config in a file of ours."""
    if config is not None:
        return target_of(config, num_classes)
    if row is OURS and weights.config is not None:
        return target_of(parse_config(weights.config, weights.path), num_classes, origin=weights.path)
    return None


def _adapt(
    state: dict[str, Tensor],
    row: Family,
    target: Target,
    published: Sequence[zoo.Variant],
    classes: int,
    report: Report,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Settle what the source means differently; returns also what the model has no place for, under its old names."""
    state = _fit_classes(state, classes, row, target, report)
    state, done = adjust.fill_neutral(state, target.shapes, target.starts)
    report.done += done
    state, counters, done = adjust.fit_counters(state, target.shapes)
    report.done += done
    if row is not OURS:
        state = suit_pixels(state, {pixels_of(variant) for variant in published}, target, report)
    if found := without_counters(state, target):
        raise FcosError(f"{report.file} does not suit {target.title}: {found}.")
    return state, to_theirs(counters, row.rules).tensors


def _recognise(
    tensors: Mapping[str, Tensor], path: Path, family: str | None
) -> tuple[tuple[Family, ...], Renamed, dict[str, Tensor]]:
    """The families whose names these are, several if they share them; the tensors under our names; what no model needs.

    Raises:
        FcosError: none, not the one asked for, or some names are of no FCOS.
    """
    if any(name.startswith(OURS.mark) for name in tensors):
        if family not in (None, OURS.name):
            raise FcosError(f"{path} is a checkpoint of fcos_d2 itself, not of {family}.")
        return (OURS,), *_rename(tensors, OURS, path)
    marked = families_of(tensors)
    if family is not None:
        row = family_of(family)
        if row not in marked:
            instead = f", but like {' or '.join(f.name for f in marked)}" if marked else ""
            raise FcosError(f"{path} does not look like a checkpoint of {row.name} (no tensor {row.mark}*){instead}.")
        marked = (row,)
    if not marked:
        marks = ", ".join(dict.fromkeys(f"{f.mark}*" for f in FAMILIES.values()))
        raise FcosError(
            f"{path} is of no known FCOS family: the first of its {len(tensors)} tensors is {next(iter(tensors))!r}, "
            f"and none is called {marks}; fcos_d2.importers.load_backbone reads backbones."
        )
    done = {row.name: _rename(tensors, row, path) for row in marked}
    whole = tuple(row for row in marked if not done[row.name][0].left_over)
    renamed, unused = done[(whole or marked)[0].name]
    if not whole:
        raise FcosError(
            f"{path} looks like one of {marked[0].name}, but {len(renamed.left_over)} of its tensors are of no FCOS, "
            f"the first {renamed.left_over[0]}."
        )
    return whole, renamed, unused


def _rename(tensors: Mapping[str, Tensor], row: Family, path: Path) -> tuple[Renamed, dict[str, Tensor]]:
    """Our names; and what no model needs, under its old names."""
    unused = {name: tensor for name, tensor in tensors.items() if row.ignores(name)}
    try:
        return to_ours({name: tensor for name, tensor in tensors.items() if name not in unused}, row.rules), unused
    except FcosError as error:
        raise FcosError(f"{path}: {error}") from error


def count_classes(state: Mapping[str, Tensor], path: Path) -> int:
    wanted = ("dense.head.cls_logits.bias", "dense.head.bbox_pred.bias")
    lacking = [name for name in wanted if name not in state or state[name].dim() != 1]
    if lacking:
        raise FcosError(f"{path} is incomplete: it has no {' and no '.join(lacking)}.")
    points = max(len(state[wanted[1]]) // 4, 1)
    return len(state[wanted[0]]) // points


def _fits_nothing(path: Path, row: Family, nearest: zoo.Variant | None, least: Difference) -> FcosError:
    if nearest and least.missing and len(least) == len(least.missing):
        return FcosError(
            f"{path} is incomplete: it lacks {len(least)} tensors of {nearest.full_name} ({some(least.missing)})."
        )
    near = f"; the nearest, {nearest.full_name}, differs by {least}" if nearest else ""
    return FcosError(
        f"{path} has the names of {row.name}, but fits none of its published variants: pass the config it was "
        f"trained with{near}."
    )


def _choose(fits: Sequence[zoo.Variant], path: Path) -> tuple[zoo.Variant | None, str]:
    """The variant, if the file's name or the tensors decide; and which of them did."""
    if len(fits) == 1:
        return fits[0], "the only one with these tensors"
    if named := named_like(path, fits):
        return named[0], f"by the name of the file, {path.name}"
    if len({detects_alike(v) for v in fits}) == 1:
        return fits[0], "the others detect alike and differ in training only"
    return None, ""


def _fit_classes(
    state: dict[str, Tensor], classes: int, row: Family, target: Target, report: Report
) -> dict[str, Tensor]:
    wanted, channels = target.num_classes, row.channels_of_classes
    if wanted == classes:
        return state
    if channels and classes > max(channels) and wanted == len(channels):
        report.done.append(f"class channels {classes} -> {wanted}: those of COCO's {wanted} classes, in their order")
        return adjust.choose_classes(state, channels, classes)
    raise FcosError(
        f"{report.file} predicts {classes} classes, but {target.title} has {wanted}: set model.num_classes={classes} "
        "(MODEL.FCOS.NUM_CLASSES) to use it as it is."
    )
