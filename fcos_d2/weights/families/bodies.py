"""Rules of the networks below the pyramid, which the families share but for a prefix and the epsilon of their norms.

Every function takes the prefix of the network in the other project, with its dot; ours is `backbone.bottom_up.`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..rules import Rule

_OURS = "backbone.bottom_up."


def conv_norm(theirs: str, norm: str, ours: str, epsilon: float | None = None, **when: Any) -> tuple[Rule, ...]:
    """A convolution without bias and its norm, which lies inside the convolution here."""
    return (
        Rule(f"{theirs}.weight", f"{ours}.weight", **when),
        Rule(f"{norm}.{{A}}", f"{ours}.norm.{{A}}", epsilon=epsilon, **when),
    )


def resnet(prefix: str, stem: str = "", epsilon: float | None = None) -> tuple[Rule, ...]:
    """ResNet and ResNeXt named as torchvision's: layer1 to layer4, bn1 to bn3, downsample.

    Args:
        prefix: see above.
        stem: what stands before the stem's conv1 and bn1.
        epsilon: of the norms, see `Rule`.
    """
    block, ours = f"{prefix}layer{{k}}.{{i}}", f"{_OURS}res{{k+1}}.{{i}}"
    return (
        *conv_norm(f"{prefix}{stem}conv1", f"{prefix}{stem}bn1", f"{_OURS}stem.conv1", epsilon),
        *conv_norm(f"{block}.downsample.0", f"{block}.downsample.1", f"{ours}.shortcut", epsilon),
        *conv_norm(f"{block}.conv{{j}}", f"{block}.bn{{j}}", f"{ours}.conv{{j}}", epsilon),
    )


def detectron2_resnet(prefix: str) -> tuple[Rule, ...]:
    """Detectron2's ResNet, whose names are ours but for the offsets of deformable convolutions."""
    theirs, ours = f"{prefix}res{{k}}.{{i}}", f"{_OURS}res{{k}}.{{i}}"
    return (
        Rule(f"{prefix}stem.conv1.{{*}}", f"{_OURS}stem.conv1.{{*}}"),
        Rule(f"{theirs}.conv{{j}}_offset.{{A}}", f"{ours}.conv{{j}}.offset.{{A}}"),
        Rule(f"{theirs}.{{*}}", f"{ours}.{{*}}"),
    )


def mobilenet(prefix: str) -> tuple[Rule, ...]:
    """MobileNetV2 with the layers of a block in one row: convolution 3j, norm 3j + 1; here as in torchvision's."""
    features, ours = f"{prefix}features", f"{_OURS}features"
    rules = [Rule(f"{features}.0.{{*}}", f"{ours}.0.{{*}}")]
    for block, last in (("1", 1), ("{i}", 2)):  # the first block has no expansion
        theirs, here = f"{features}.{block}.conv", f"{ours}.{block}.conv"
        rules += [
            Rule(f"{theirs}.{3 * last}.{{A}}", f"{here}.{last}.{{A}}"),
            Rule(f"{theirs}.{3 * last + 1}.{{A}}", f"{here}.{last + 1}.{{A}}"),
            Rule(f"{theirs}.{{3j}}.{{A}}", f"{here}.{{j}}.0.{{A}}"),
            Rule(f"{theirs}.{{3j+1}}.{{A}}", f"{here}.{{j}}.1.{{A}}"),
        ]
    return tuple(rules)


def vovnet(prefix: str, epsilon: float | None = None) -> tuple[Rule, ...]:
    """VoVNet, whose published names repeat stage and block and contain slashes."""
    name = "OSA{k}_{b+1}"
    block, ours = f"{prefix}stage{{k}}.{name}", f"{_OURS}stage{{k}}.{{b}}"
    rows = (
        (f"{prefix}stem.stem_{{n+1}}", f"{_OURS}stem.{{n}}"),
        (f"{block}.layers.{{j}}.{name}_{{j}}", f"{ours}.layers.{{j}}"),
        (f"{block}.concat.{name}_concat", f"{ours}.concat"),
    )
    rules = [rule for theirs, here in rows for rule in conv_norm(f"{theirs}/conv", f"{theirs}/norm", here, epsilon)]
    return (*rules, Rule(f"{block}.ese.fc.{{A}}", f"{ours}.ese.fc.{{A}}"))


def dla(prefix: str) -> tuple[Rule, ...]:
    """DLA, whose names are ours."""
    return tuple(Rule(f"{prefix}{name}", f"{_OURS}{name}") for name in ("base_layer.{*}", "level{n}.{*}"))


def hrnet(prefix: str) -> tuple[Rule, ...]:
    """HRNet; its stem and `layer1` have names of a ResNet, so its second stem convolution tells it apart."""
    when: dict[str, Any] = {"given": f"{prefix}conv2.weight", "beside": f"{_OURS}transition1.0.weight"}
    stage, ours = f"{prefix}stage{{s}}.{{m}}", f"{_OURS}stage{{s}}.{{m}}"
    transition, here = f"{prefix}transition{{s}}", f"{_OURS}transition{{s}}"
    rows = (  # where a convolution and its norm lie, what they are called there, and our name
        (prefix, "conv{n+1}", "bn{n+1}", f"{_OURS}stem.{{n}}"),
        (f"{prefix}layer1.{{b}}.", "conv{j}", "bn{j}", f"{_OURS}layer1.{{b}}.conv{{j}}"),
        (f"{prefix}layer1.{{b}}.", "downsample.0", "downsample.1", f"{_OURS}layer1.{{b}}.shortcut"),
        (f"{transition}.{{s}}.", "0.0", "0.1", f"{here}.{{s}}"),  # the new resolution
        (f"{transition}.{{i}}.", "0", "1", f"{here}.{{i}}"),
        (f"{stage}.branches.{{i}}.{{b}}.", "conv{j}", "bn{j}", f"{ours}.branches.{{i}}.{{b}}.conv{{j}}"),
        (f"{stage}.fuse_layers.{{i}}.{{j}}.{{k}}.", "0", "1", f"{ours}.fuse.{{i}}.{{j}}.{{k}}"),
        (f"{stage}.fuse_layers.{{i}}.{{j}}.", "0", "1", f"{ours}.fuse.{{i}}.{{j}}"),
    )
    return tuple(rule for at, conv, norm, name in rows for rule in conv_norm(at + conv, at + norm, name, **when))


def given(name: str, rules: tuple[Rule, ...], beside: str | None = None) -> tuple[Rule, ...]:
    """The same rules, only for files that have `name` (and models of ours that have `beside`)."""
    return tuple(replace(rule, given=name, beside=beside or rule.beside) for rule in rules)
