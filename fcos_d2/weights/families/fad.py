"""msight-tech/research-fad: FCOS's names, and the cells of a searched head instead of towers (`modeling/fad_head.py`).

An operation of one layer has other names there than a layer of several. Names tell the operation of each edge, and not
which state it reads: that is the genotype's business, which no checkpoint holds.
"""

from __future__ import annotations

from dataclasses import replace

from ..rules import Rule
from .fcos import FCOS_CORE, predictors

_HEAD, _OURS = "rpn.head.", "dense.head."


def _tower(name: str) -> tuple[Rule, ...]:
    theirs, ours = f"{_HEAD}{name}.cells.{{c}}", f"{_OURS}{name}.{{c}}"
    edge, here = f"{theirs}.dag.{{n}}.{{e}}", f"{ours}.nodes.{{n}}.{{e}}"
    layer, one = f"{edge}.1.conv_{{i}}", f"{edge}.1.net"
    dilated, several, separable = f"{here}.depthwise_{{i}}.bias", f"{here}.norm_1.weight", f"{here}.depthwise_0.weight"
    rows = (  # their name, our name, what ours needs beside it, what theirs needs beside it
        (f"{theirs}.preproc1.net.0", f"{ours}.adapt.conv", None, None),
        (f"{theirs}.preproc1.net.1", f"{ours}.adapt.norm", None, None),
        (f"{edge}.0", f"{here}.enter", None, None),
        (f"{edge}.2", f"{here}.exit", None, None),
        (f"{layer}.0", f"{here}.depthwise_{{i}}", dilated, None),
        (f"{layer}.1", f"{here}.pointwise_{{i}}", dilated, None),
        (f"{layer}.net.0", f"{here}.depthwise_{{i}}", several, None),
        (f"{layer}.net.1", f"{here}.pointwise_{{i}}", several, None),
        (layer, f"{here}.conv_{{i}}", several, None),
        (f"{edge}.1.gn_{{i}}", f"{here}.norm_{{i}}", several, None),
        (f"{one}.0", f"{here}.depthwise_0", None, f"{one}.2.weight"),
        (f"{one}.1", f"{here}.pointwise_0", None, f"{one}.2.weight"),
        (f"{one}.2", f"{here}.norm_0", separable, None),
        (f"{one}.0", f"{here}.conv_0", None, None),
        (f"{one}.1", f"{here}.norm_0", None, None),
    )
    return tuple(Rule(f"{a}.{{A}}", f"{b}.{{A}}", beside=beside, given=given) for a, b, beside, given in rows)


HEAD = (
    *_tower("cls_tower"),
    *_tower("bbox_tower"),
    *(Rule(f"{_HEAD}{name}.{{A}}", f"{_OURS}{name}.{{A}}") for name in ("cls_reduce", "box_reduce")),
    *predictors(_HEAD),
)
FAD = replace(
    FCOS_CORE,
    name="fad",
    source="msight-tech/research-fad",
    rules=(*(rule for rule in FCOS_CORE.rules if not rule.theirs.startswith(_HEAD)), *HEAD),
    mark=f"{_HEAD}box_reduce.",
    zoo="fad",
    activations=(("relu", "stride"),),
    quality_on=("box",),
    notes=(
        *FCOS_CORE.notes,
        "the names of the weights tell the operation of each edge, but not which state it reads: that is what the "
        "genotype says that the model was built with",
    ),
)
