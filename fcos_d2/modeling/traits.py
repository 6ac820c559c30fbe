"""What a module declares about itself, for those that rewrite it (see `rewrite/`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Traits"]


@dataclass(frozen=True)
class Traits:
    """Facts that cannot be seen from outside a `forward`. A class states them as its attribute `traits`.

    Attributes:
        reads_neighbours: its own `forward` reads neighbouring cells of its first argument, e.g. by a pool that is a
            function; its submodules are looked at by themselves.
        pooled: submodules whose outputs its `forward` gives to a max pool that is a function.
        crosses_border: why its result depends on padding whatever is done, to follow the module's name in a message.
        recomputable: a block whose activations gradient checkpointing may drop and compute again.
        norm_after: convolution -> norm, both by the name of the submodule: `forward` gives the convolution's output to
            that norm and to nothing else.
        any_precision: it takes and returns maps of any floating type, whatever type its weights have.
        exact: submodules that stay in float32 in any precision: a rounded logit is off by up to 1/256 of itself.
    """

    reads_neighbours: bool = False
    pooled: tuple[str, ...] = ()
    crosses_border: str = ""
    recomputable: bool = False
    norm_after: Mapping[str, str] = field(default_factory=dict)
    any_precision: bool = False
    exact: tuple[str, ...] = ()
