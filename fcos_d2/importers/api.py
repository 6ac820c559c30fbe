"""`load`, `export` and `convert`: from a file to our tensors, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import zoo
from ..engine.checkpoint import save
from ..errors import FcosError
from .adelaidet import ADELAIDET
from .adjust import (
    change_epsilon,
    choose_classes,
    fill_neutral,
    fit_counters,
    spread_classes,
    swap_input,
)
from .detectron2 import DETECTRON2
from .family import Family
from .fcos import FCOS_CORE
from .fcos_plus import FCOS_PLUS
from .files import read
from .mapping import some, to_ours, to_theirs
from .mmdet import MMDET
from .report import Report
from .target import (
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

FAMILIES: dict[str, Family] = {f.name: f for f in (FCOS_CORE, FCOS_PLUS, ADELAIDET, MMDET, TORCHVISION, DETECTRON2)}
_ALIASES = {"fcos": "fcos_core", "tianzhi": "fcos_core", "mmdetection": "mmdet"}
# This package's own checkpoints.
OURS = "fcos_d2"
_OUR_MARK = "dense.head."


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
    """

    state_dict: dict[str, Tensor]
    report: Report
    family: str
    variants: tuple[zoo.Variant, ...] = ()
    variant: zoo.Variant | None = None
    unused: Mapping[str, Tensor] = field(default_factory=dict)

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
        config: what the weights are for: the name of a variant, a config, or a model. Without it, every published variant
            of the family is tried.
        num_classes: of the result. 80 picks COCO's classes out of torchvision's 91; otherwise it must be the file's.
    Raises:
        FcosError: the file is damaged, hostile, of no known family, incomplete, or for another model or other classes.
    """
    path = Path(path)
    tensors, _ = read(path)
    families = _recognise(tensors, path, family)
    row, report = families[0], Report(str(path), families[0].name)
    unused = {name: tensors.pop(name) for name in row.ignored if name in tensors}
    report.ignored = list(unused)
    state = _rename(tensors, row, path, report)
    classes = _count_classes(state, path)

    # 1. What the weights are for.
    target = None if config is None else target_of(config, num_classes)
    wanted = num_classes or (target.num_classes if target else classes)
    source = _published(families, state, classes)
    if target and target.variant and any(target.variant.family == f.zoo for f in families):
        fits, source = [target.variant], [target.variant]
    elif target:
        fits = [target.variant] if target.variant else []
    else:
        fits = source
        if not fits:
            raise _fits_nothing(path, families, state, classes)
    chosen = _choose(fits, path, target, report)
    target = target or variant_target(chosen or fits[0], wanted)

    # 2. What the model means differently.
    state = _fit_classes(state, classes, wanted, row, path, target, report)
    state, steps = fill_neutral(state, target.shapes, target.starts)
    report.done += steps
    state, counters, steps = fit_counters(state, target.shapes)
    report.done += steps
    unused |= to_theirs(counters, row.rules).tensors
    state = _fit_pixels(state, source, target, report)
    if difference := gap(state, target):
        raise FcosError(f"{path} does not suit {target.title}: {difference}.")

    # 3. What was done.
    if chosen:
        row = next((f for f in families if f.zoo == chosen.family), row)
    report.family = row.name
    report.same_names = tuple(f.name for f in families if f is not row) if chosen is None else ()
    report.variants = tuple(v.full_name for v in fits)
    report.num_classes, report.tensors = wanted, len(state)
    report.facts += _facts(row, fits, target)
    return Imported(state, report, row.name, tuple(fits), chosen, unused)
