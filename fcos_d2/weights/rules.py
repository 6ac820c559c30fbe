"""Rules that rename tensors of another project to ours, and back.

A rule is a pair of templates, their name and our name. Fields in braces stand for the parts that both names share:

    {n}       a whole number, one lower-case letter; {3n+1} and {n-2} are written from the same number n
    {A}       one component of the name (no dots), one upper-case letter
    {*}       the rest of the name, dots included

For example, `layer{k}.{i}.bn{j}.{*}` -> `res{k+1}.{i}.conv{j}.norm.{*}` renames `layer2.0.bn1.weight` to
`res3.0.conv1.norm.weight`. Rules are tried in their order, and the first whose template matches a name renames it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from ..errors import FcosError

_FIELD = re.compile(r"\{(?:(?P<times>\d*)(?P<number>[a-z])(?P<plus>[+-]\d+)?|(?P<word>[A-Z])|(?P<rest>\*))\}")

Fields = dict[str, "int | str"]
# What all norms of this package's models add to the variance.
EPSILON = 1e-5


@dataclass(frozen=True)
class Rule:
    """One rename in both directions.

    Attributes:
        theirs, ours: templates of the two names.
        epsilon: what the other project adds to the variance of the norm that this rule renames, if not `EPSILON`.
        legacy: `theirs` is an older name: it is read, never written.
        beside: the rule applies to writing only if the model has our name that this template gives.
        given: the rule applies to reading only if the file has their name that this template gives.
        stacked: they keep one tensor of this shape for each level {n}; ours is one tensor with a row for each level.
    """

    theirs: str
    ours: str
    epsilon: float | None = None
    legacy: bool = False
    beside: str | None = None
    given: str | None = None
    stacked: tuple[int, ...] | None = None


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
    """The fields with which `template` gives `name`; `None` if it cannot."""
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


def matches(templates: Sequence[str], name: str) -> bool:
    """Whether one of the templates can give `name`."""
    return any(fields_of(template, name) is not None for template in templates)


def fill(template: str, fields: Mapping[str, int | str]) -> str:
    """The name that `template` gives with `fields`."""

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
        left_over: names that no rule renames.
        epsilons: our name of a norm, without `.running_var` -> epsilon of the other project, if not `EPSILON`.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    left_over: list[str] = field(default_factory=list)
    epsilons: dict[str, float] = field(default_factory=dict)


def to_ours(tensors: Mapping[str, Tensor], rules: Sequence[Rule]) -> Renamed:
    """Rename another project's tensors; raises FcosError if two get one name, or a level of a stacked one lacks."""
    done = Renamed()
    sources: dict[str, str] = {}
    stacks: dict[str, dict[int, Tensor]] = {}
    for name, tensor, rule, fields in _renames(tensors, rules, done, reading=True):
        ours = fill(rule.ours, fields)
        if rule.stacked is not None:
            stacks.setdefault(ours, {})[int(fields["n"])] = tensor
            continue
        if ours in sources:
            both = f"{sources[ours]!r} and {name!r} both become {ours!r}"
            raise FcosError(f"{both}: the file holds one weight under two names.")
        sources[ours] = name
        done.tensors[ours] = tensor
    for ours, levels in stacks.items():
        if sorted(levels) != list(range(len(levels))) or any(level.numel() != 1 for level in levels.values()):
            raise FcosError(f"{ours!r} needs one number for each level, but the file has levels {sorted(levels)}.")
        done.tensors[ours] = torch.stack([levels[i].reshape(()) for i in range(len(levels))])
    return done


def to_theirs(tensors: Mapping[str, Tensor], rules: Sequence[Rule]) -> Renamed:
    """Rename our tensors to another project's names; the inverse of `to_ours`, but for older names."""
    done = Renamed()
    for _, tensor, rule, fields in _renames(tensors, [rule for rule in rules if not rule.legacy], done, reading=False):
        if rule.stacked is None:
            done.tensors[fill(rule.theirs, fields)] = tensor
            continue
        for n, row in enumerate(tensor):
            done.tensors[fill(rule.theirs, {"n": n})] = row.reshape(rule.stacked).clone()
    return done


def _renames(
    tensors: Mapping[str, Tensor], rules: Sequence[Rule], done: Renamed, reading: bool
) -> Iterator[tuple[str, Tensor, Rule, Fields]]:
    """Each tensor with the first rule that renames it; `done` gets the epsilons, and the names without a rule."""
    for name, tensor in tensors.items():
        for rule in rules:
            fields = fields_of(rule.theirs if reading else rule.ours, name)
            needed = rule.given if reading else rule.beside
            if fields is not None and (needed is None or fill(needed, fields) in tensors):
                ours = fill(rule.ours, fields) if reading else name
                if rule.epsilon is not None and ours.endswith(".running_var"):
                    done.epsilons[ours.removesuffix(".running_var")] = rule.epsilon
                yield name, tensor, rule, fields
                break
        else:
            done.left_over.append(name)


@dataclass(frozen=True)
class Difference:
    """How the tensors of a file differ from those that a model wants.

    Attributes:
        missing, left_over: names that only the model has, and that only the file has.
        shapes: name -> (shape in the file, shape in the model), where these differ.
    """

    missing: tuple[str, ...] = ()
    left_over: tuple[str, ...] = ()
    shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.missing) + len(self.left_over) + len(self.shapes)

    def __str__(self) -> str:
        parts = [f"{len(self.missing)} missing ({some(self.missing)})"] * bool(self.missing)
        parts += [f"{len(self.left_over)} left over ({some(self.left_over)})"] * bool(self.left_over)
        for name, (theirs, ours) in list(self.shapes.items())[:1]:
            first = f"{name}: {list(theirs)} in the file, {list(ours)} wanted"
            parts.append(f"{len(self.shapes)} of another shape ({first})")
        return ", ".join(parts) or "0 missing, 0 left over"


def difference(tensors: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]]) -> Difference:
    """Compare names and shapes of tensors with those a model wants."""
    both = {name: (tuple(tensors[name].shape), tuple(shape)) for name, shape in wanted.items() if name in tensors}
    return Difference(
        tuple(name for name in wanted if name not in tensors),
        tuple(name for name in tensors if name not in wanted),
        {name: shapes for name, shapes in both.items() if shapes[0] != shapes[1]},
    )


def some(names: Sequence[str], limit: int = 3) -> str:
    """The first few names."""
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
