"""`load`: from a file of another project to our tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import zoo
from ..config.stored import parse_config
from ..errors import FcosError
from . import adjust
from .adjust import Pixels
from .expected import (
    Target,
    Traits,
    choose,
    describe,
    fitting,
    other_recipe,
    target_of,
    variant_target,
    without_counters,
)  # fmt: skip
from .families import FAMILIES, OURS, families_of, family_of
from .families.family import Family
from .read import Weights, read, weights_of
from .report import Report
from .rules import Difference, Renamed, some, to_ours, to_theirs
from .wiring import config_with, mismatch


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
        traits: what the model does that they were read for; `None` if it is not made of this package's parts.
        config: what they were read for, if it is of no variant and was put together from the genotype asked for.
    """

    state_dict: dict[str, Tensor]
    report: Report
    family: str
    variants: tuple[zoo.Variant, ...] = ()
    variant: zoo.Variant | None = None
    unused: Mapping[str, Tensor] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    traits: Traits | None = None
    config: Any = None

    @property
    def config_name(self) -> str:
        """Name of the variant; raises FcosError with the choices if several fit and nothing decides."""
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
    genotype: str | Path | None = None,
) -> Imported:
    """Read a published checkpoint, or one of ours, on the CPU; nothing in the file is run.

    Args:
        source: .pth file, .pkl of Detectron2, or what was read from one.
        family: whose it is; by default recognised by its names.
        config: what the weights are for: the name of a variant, a config, or a model. Without it, every published
            variant of the family is tried.
        num_classes: of the result. 80 picks COCO's classes out of torchvision's 91; otherwise it must be the file's.
        genotype: of a searched head: a published name, a `genotype.log`, or its text; without it, those of the
            variants are tried. The operation of each edge is checked; names do not tell which state an edge reads.
    Raises:
        FcosError: the file is damaged, hostile, of no known family, incomplete, or for another model or other classes.
    """
    weights = weights_of(source, "the state dict") if isinstance(source, Mapping) else read(source)
    return imported(weights, family, config, num_classes, genotype)


def imported(
    weights: Weights, family: str | None = None, config: Any = None, num_classes: int | None = None,
    genotype: str | Path | None = None,
) -> Imported:  # fmt: skip
    """The same of weights that were read."""
    path, tensors = Path(weights.path), weights.chosen()
    families, renamed, unused = _recognise(tensors, path, family)
    row = families[0]
    report = Report(str(path), row.name, ignored=list(unused), class_names=weights.class_names)
    report.facts += ["the averaged weights (ema) of the training"] * (weights.averages is not None)
    state = renamed.tensors
    classes = count_classes(state, path)
    rows = [v for v in zoo.VARIANTS if row is OURS or any(v.family == f.zoo for f in families)]
    target = None
    if genotype is not None:
        config = config_with(genotype, state, rows, config, classes, str(path))
    if config is not None:
        target = target_of(config, num_classes)
    elif row is OURS and weights.config is not None:
        target = target_of(parse_config(weights.config, weights.path), num_classes, origin=weights.path)
    if target is not None:
        chosen, report.chosen_by = target.variant, "asked for"
        fits = [chosen] if chosen else []
        published = fits if chosen in rows else [] if row is OURS else fitting(state, rows, classes)[0]
    else:
        fits, nearest, least = fitting(state, rows, classes)
        if not fits:
            otherwise = mismatch(state, variant_target(nearest, classes)) if nearest else ""
            raise _fits_nothing(path, row, nearest, least, otherwise)
        chosen, report.chosen_by = choose(fits, path, classes)
        target, published = variant_target(chosen or fits[0], num_classes or classes), fits
    sources = [variant_target(v, classes) for v in published]
    state, dropped = _adapt(state, row, target, {t.pixels for t in sources if t.pixels}, classes, report)
    state, steps = adjust.change_epsilon(state, renamed.epsilons)  # now that all shapes are known to be right
    report.done = [*steps, *report.done]
    if chosen:
        row = next((f for f in families if f.zoo == chosen.family), row)
        report.config_name = chosen.full_name
    elif fits:
        report.same_names = tuple(f.name for f in families if any(v.family == f.zoo for v in fits))
    report.family, report.variants = row.name, tuple(v.full_name for v in fits)
    report.num_classes, report.tensors = target.num_classes, len(state)
    report.renamed = sum(name not in tensors for name in state)
    report.facts += [*row.notes, *describe([target] if chosen or not fits else sources)]
    if row is OURS and config is not None:
        report.other_recipe = other_recipe(stored_targets(weights), target, pixels=True)
    elif config is not None:
        if target.traits:  # names do not tell which genotype it was
            sources = [
                replace(t, traits=t.traits and replace(t.traits, genotype=target.traits.genotype)) for t in sources
            ]
        report.other_recipe = other_recipe(sources, target)
        named, why = choose(published, path, classes) if published else (None, "")
        if named and "name" in why and (text := other_recipe([variant_target(named, classes)], target)):
            report.warnings.append(f"the file has the name of {named.full_name}, which does otherwise: {text}")
    report.warnings += [f"trained for another recipe: {report.other_recipe}"] * bool(report.other_recipe)
    unused = {**unused, **dropped}
    kept = None if genotype is None or chosen else config
    return Imported(state, report, report.family, tuple(fits), chosen, unused, weights.extra, target.traits, kept)


def _with_genotype_of(target: Target, source: Target) -> Target:
    """A source as it may have been trained: its names do not tell the genotype."""
    if target.traits is None or source.traits is None:
        return source
    return replace(source, traits=replace(source.traits, genotype=target.traits.genotype))


def _adapt(
    state: dict[str, Tensor], row: Family, target: Target, pixels: set[Pixels], classes: int, report: Report
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Settle what the source means differently; returns also what the model has no place for, under its old names."""
    wanted, channels = target.num_classes, row.channels_of_classes
    if channels and wanted == len(channels) and classes > max(channels):
        state = adjust.choose_classes(state, channels, classes)
        report.done.append(f"class channels {classes} -> {wanted}: those of COCO's {wanted} classes, in their order")
    elif wanted != classes:
        raise FcosError(
            f"{report.file} predicts {classes} classes, but {target.title} has {wanted}: set "
            f"model.num_classes={classes} (MODEL.FCOS.NUM_CLASSES; `fcos convert`: --num-classes {classes}) to use it "
            "as it is."
        )
    state = adjust.fill_neutral(state, target.shapes, target.starts, report)
    state, counters = adjust.fit_counters(state, target.shapes, report)
    if found := without_counters(state, target):
        raise FcosError(f"{report.file} does not suit {target.title}: {mismatch(state, target) or found}.")
    if row is not OURS:
        state = adjust.change_pixels(state, pixels, target.pixels, report)
    return state, to_theirs(counters, row.rules).tensors


def _recognise(
    tensors: Mapping[str, Tensor], path: Path, family: str | None
) -> tuple[tuple[Family, ...], Renamed, dict[str, Tensor]]:
    """The families whose names these are, several if they share them; the tensors under our names; what no model needs.

    Raises FcosError if there is none, or not the one asked for, or some names are of no FCOS.
    """
    marked = families_of(tensors)
    if family is not None:
        row = OURS if family == OURS.name else family_of(family)
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
    found = []
    for row in marked:
        unused = {name: tensor for name, tensor in tensors.items() if row.ignores(name)}
        try:
            found.append((row, to_ours({n: t for n, t in tensors.items() if n not in unused}, row.rules), unused))
        except FcosError as error:
            raise FcosError(f"{path}: {error}") from error
    whole = [entry for entry in found if not entry[1].left_over]
    row, renamed, unused = whole[0] if whole else min(found, key=lambda entry: len(entry[1].left_over))
    if not whole:
        raise FcosError(
            f"{path} looks like one of {row.name}, but {len(renamed.left_over)} of its tensors are of no FCOS, "
            f"the first {renamed.left_over[0]}."
        )
    return tuple(row for row, *_ in whole), renamed, unused


def stored_targets(weights: Weights) -> list[Target]:
    """What a checkpoint of ours was trained as, by the config in it; empty if it holds none that can be built."""
    if weights.config is None:
        return []
    try:
        return [target_of(parse_config(weights.config, weights.path), origin=weights.path)]
    except FcosError:  # a part of another project that this process does not know
        return []


def num_classes_of(weights: Weights) -> int:
    """Classes of a detector, whoever made it; 0 if the weights are of no FCOS."""
    path = Path(weights.path)
    try:
        return count_classes(_recognise(weights.chosen(), path, None)[1].tensors, path)
    except FcosError:
        return 0


def count_classes(state: Mapping[str, Tensor], path: Path) -> int:
    wanted = ("dense.head.cls_logits.bias", "dense.head.bbox_pred.bias")
    lacking = [name for name in wanted if name not in state or state[name].dim() != 1]
    if lacking:
        raise FcosError(f"{path} is incomplete: it has no {' and no '.join(lacking)}.")
    points = max(len(state[wanted[1]]) // 4, 1)
    return len(state[wanted[0]]) // points


def _fits_nothing(path: Path, row: Family, nearest: zoo.Variant | None, least: Difference, otherwise: str) -> FcosError:
    if otherwise:
        return FcosError(f"{path} was trained with another genotype than those that were published: {otherwise}.")
    if nearest and least.missing and len(least) == len(least.missing):
        return FcosError(
            f"{path} is incomplete: it lacks {len(least)} tensors of {nearest.full_name} ({some(least.missing)})."
        )
    near = f"; the nearest, {nearest.full_name}, differs by {least}" if nearest else ""
    return FcosError(
        f"{path} has the names of {row.name}, but fits none of its published variants: pass the config it was "
        f"trained with{near}."
    )
