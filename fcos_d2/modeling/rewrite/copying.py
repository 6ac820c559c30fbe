"""The one way in which modules are rewritten: a copy in which some parts are objects of other classes.

The copy is Python's `copy.deepcopy`, told beforehand what stands for each replaced part. So every reference to the
part, in lists and hooks as well as among the submodules, leads to its replacement, and the original stays untouched.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NamedTuple

from torch import nn

__all__ = ["Derived", "Replacement", "derived", "plain", "rebuilt"]


class Replacement(NamedTuple):
    """What stands in the place of a part.

    Attributes:
        kind: class of the new part; it gets a copy of the old one's state.
        edit: changes the new part after that; what is below it may not be complete yet.
    """

    kind: type[nn.Module]
    edit: Callable[[nn.Module], None] = lambda new: None


def rebuilt(
    module: nn.Module,
    rule: Callable[[nn.Module], Replacement | None],
    keep: Iterable[nn.Module] = (),
    tensors: dict[int, Any] | None = None,
) -> nn.Module:
    """A copy of a module, with its tensors, in which the rule's replacements stand.

    Args:
        module: stays as it is.
        rule: gives the replacement of a part, or `None`.
        keep: submodules that are not copied: the result refers to them.
        tensors: id of a parameter or buffer -> what stands for it; others are shared with the original.
    """
    kept = {id(part): part for top in keep for part in top.modules()}
    memo: dict[int, Any] = {id(x): x for x in (*module.parameters(), *module.buffers())} | (tensors or {}) | kept
    replaced = [(part, found) for part in module.modules() if id(part) not in kept and (found := rule(part))]
    for part, (kind, _) in replaced:  # all of them first: parts may refer to each other in circles
        memo[id(part)] = kind.__new__(kind)
    for part, _ in replaced:
        memo[id(part)].__setstate__(copy.deepcopy(part.__reduce_ex__(4)[2], memo))
    for part, (_, edit) in replaced:
        edit(memo[id(part)])
    return copy.deepcopy(module, memo)


class Derived(nn.Module):
    """Base of mixins for `derived`, whose classes can be copied and pickled although no module holds them.

    Attributes:
        plain: the class that the mixin was put before.
    """

    mixin: ClassVar[type]
    plain: ClassVar[type[nn.Module]]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _empty, (self.mixin, self.plain), super().__reduce_ex__(protocol)[2]


_DERIVED: dict[tuple[Any, Any], Any] = {}


def derived(mixin: Any, plain: Any) -> Any:
    """The class `plain` with a mixin before it, which can call the plain methods by `super()`."""
    if (mixin, plain) not in _DERIVED:
        members = {"mixin": mixin, "plain": plain}
        _DERIVED[mixin, plain] = type(f"{mixin.__name__}{plain.__name__}", (mixin, plain), members)
    return _DERIVED[mixin, plain]


def _empty(mixin: type[Derived], plain: type[nn.Module]) -> nn.Module:
    kind = derived(mixin, plain)
    return kind.__new__(kind)


def plain(module: nn.Module, *mixins: type[Derived]) -> nn.Module:
    """A copy of a module, with its tensors, whose parts are no longer of classes derived with these mixins."""

    def rule(part: nn.Module) -> Replacement | None:
        kind = type(part)
        while issubclass(kind, mixins):
            kind = kind.plain
        return None if kind is type(part) else Replacement(kind)

    return rebuilt(module, rule)
