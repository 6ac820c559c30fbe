"""Rename rules that read in both directions, and what happened when they were applied.

A rule joins a name of another project to a name of ours by two templates with the same fields:

    {n}       a whole number; also {3n+1} or {n-2}, the same number in other words
    {A}       one component, without a dot
    {*}       the rest of the name

so `layer{k}.{i}.bn{j}.{*}` and `res{k+1}.{i}.conv{j}.norm.{*}` rename a whole ResNet, and rename it back. Rules are
ordered: the first that fits a name decides. Words: theirs, ours = the two sides of a rule; a "norm" is what the names
of a normalization's tensors begin with, e.g. `backbone.bottom_up.stem.conv1.norm`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from ..errors import FcosError

_FIELD = re.compile(r"\{(?:(?P<times>\d*)(?P<number>[a-z])(?P<plus>[+-]\d+)?|(?P<word>[A-Z])|(?P<rest>\*))\}")

Fields = dict[str, "int | str"]


@dataclass(frozen=True)
class Rule:
    """One rename in both directions.

    Attributes:
        theirs, ours: templates of the two names.
        epsilon: of a norm that this rule renames, where the source adds another number to the variance than ours does
            (`EPSILON`); `None` where it adds the same.
        legacy: an older name: it is read, never written.
        beside: our name (template) that must exist for `ours` to be written as `theirs`.
        given: their name (template) that must exist for `theirs` to be read as `ours`.
        stacked: `{n}` of `theirs` is the row of our one tensor; the shape of each of their tensors.
    """

    theirs: str
    ours: str
    epsilon: float | None = None
    legacy: bool = False
    beside: str | None = None
    given: str | None = None
    stacked: tuple[int, ...] | None = None


# What all norms of this package's models add to the variance.
EPSILON = 1e-5


@cache
def _parse(template: str) -> tuple[re.Pattern[str], tuple[tuple[str, int, int], ...]]:
    """Template -> (pattern, for each number: name, factor, offset)."""
    pattern, numbers, seen, end = "", [], set(), 0
    for match in _FIELD.finditer(template):
        pattern += re.escape(template[end : match.start()])
        end = match.end()
        name = match["number"] or match["word"] or "rest"
        if name in seen:
            pattern += f"(?P={name})"
            continue
        seen.add(name)
        if match["number"]:
            pattern += rf"(?P<{name}>\d+)"
            numbers.append((name, int(match["times"] or 1), int(match["plus"] or 0)))
        else:
            pattern += rf"(?P<{name}>[^.]+)" if match["word"] else r"(?P<rest>.+)"
    return re.compile(pattern + re.escape(template[end:])), tuple(numbers)


def fields_of(template: str, name: str) -> Fields | None:
    """The fields that turn `template` into `name`; `None` if none do."""
    pattern, numbers = _parse(template)
    match = pattern.fullmatch(name)
    if match is None:
        return None
    fields: Fields = dict(match.groupdict())
    for number, times, plus in numbers:
        value, remainder = divmod(int(fields[number]) - plus, times)
        if remainder or value < 0:
            return None
        fields[number] = value
    return fields


def fill(template: str, fields: Mapping[str, int | str]) -> str:
    """The name that `template` makes of `fields`."""

    def text(match: re.Match[str]) -> str:
        if match["number"]:
            return str(int(match["times"] or 1) * int(fields[match["number"]]) + int(match["plus"] or 0))
        return str(fields[match["word"] or "rest"])

    return _FIELD.sub(text, template)


@dataclass
class Renamed:
    """Tensors under new names.

    Attributes:
        tensors: new name -> tensor.
        left_over: old names that no rule fits.
        epsilons: our name of a norm -> epsilon of the source, where it is not `EPSILON`.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    left_over: list[str] = field(default_factory=list)
    epsilons: dict[str, float] = field(default_factory=dict)


def to_ours(tensors: Mapping[str, Tensor], rules: Sequence[Rule]) -> Renamed:
    """Rename another project's tensors to our names.

    Raises:
        FcosError: two names become one; a stack has gaps.
    """
    done, sources, stacks = Renamed(), {}, {}
    for name, tensor in tensors.items():
        fits = ((rule, _among(tensors, rule.given, fields_of(rule.theirs, name))) for rule in rules)
        rule, fields = _first(fits, name, done)
        if rule is None:
            continue
        target = fill(rule.ours, fields)
        if rule.stacked is not None:
            stacks.setdefault(target, {})[int(fields["n"])] = tensor
            continue
        if target in sources:
            raise FcosError(
                f"{sources[target]!r} and {name!r} both become {target!r}: the file holds one weight under two names."
            )
        sources[target] = name
        done.tensors[target] = tensor
        if rule.epsilon is not None and target.endswith(".running_var"):
            done.epsilons[target.removesuffix(".running_var")] = rule.epsilon
    for target, rows in stacks.items():
        if sorted(rows) != list(range(len(rows))):
            raise FcosError(f"{target!r} needs one tensor for each level, but the file has levels {sorted(rows)}.")
        done.tensors[target] = torch.stack([rows[i].reshape(()) for i in range(len(rows))])
    return done


def to_theirs(tensors: Mapping[str, Tensor], rules: Sequence[Rule]) -> Renamed:
    """Rename our tensors to another project's names; the inverse of `to_ours` without its legacy names."""
    done = Renamed()
    written = [rule for rule in rules if not rule.legacy]
    for name, tensor in tensors.items():
        fits = ((rule, _among(tensors, rule.beside, fields_of(rule.ours, name))) for rule in written)
        rule, fields = _first(fits, name, done)
        if rule is None:
            continue
        if rule.stacked is not None:
            for n, row in enumerate(tensor):
                done.tensors[fill(rule.theirs, {"n": n})] = row.reshape(rule.stacked).clone()
            continue
        done.tensors[fill(rule.theirs, fields)] = tensor
        if rule.epsilon is not None and name.endswith(".running_var"):
            done.epsilons[name.removesuffix(".running_var")] = rule.epsilon
    return done


def _among(tensors: Mapping[str, Tensor], neighbour: str | None, fields: Fields | None) -> Fields | None:
    """`fields`, unless they name a neighbour that is not there."""
    if fields is None or neighbour is None or fill(neighbour, fields) in tensors:
        return fields
    return None


def _first(fits: Iterable[tuple[Rule, Fields | None]], name: str, done: Renamed) -> tuple[Rule | None, Fields]:
    """The first rule that fits; without one, `name` is left over."""
    for rule, fields in fits:
        if fields is not None:
            return rule, fields
    done.left_over.append(name)
    return None, {}


@dataclass(frozen=True)
class Difference:
    """How the tensors of a file differ from what a model wants.

    Attributes:
        missing: names that the model wants and the file lacks.
        left_over: names that the file has and the model does not know.
        shapes: name -> (shape in the file, shape in the model).
    """

    missing: tuple[str, ...] = ()
    left_over: tuple[str, ...] = ()
    shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.missing) + len(self.left_over) + len(self.shapes)

    def __str__(self) -> str:
        parts = []
        if self.missing:
            parts.append(f"{len(self.missing)} missing ({some(self.missing)})")
        if self.left_over:
            parts.append(f"{len(self.left_over)} left over ({some(self.left_over)})")
        if self.shapes:
            name, (theirs, ours) = next(iter(self.shapes.items()))
            parts.append(
                f"{len(self.shapes)} of another shape ({name}: {list(theirs)} in the file, {list(ours)} wanted)"
            )
        return ", ".join(parts) or "0 missing, 0 left over"


def difference(tensors: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]]) -> Difference:
    """Compare names and shapes of tensors with those a model wants."""
    return Difference(
        tuple(name for name in wanted if name not in tensors),
        tuple(name for name in tensors if name not in wanted),
        {
            name: (tuple(tensor.shape), tuple(wanted[name]))
            for name, tensor in tensors.items()
            if name in wanted and tuple(tensor.shape) != tuple(wanted[name])
        },
    )


def some(names: Sequence[str], limit: int = 3) -> str:
    """The first few names."""
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
