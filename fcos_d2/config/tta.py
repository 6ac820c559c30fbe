"""Test-time augmentation in configs: the keys `TEST.AUG.*`, the node `tta` of a LazyConfig, or a preset by its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from detectron2.config import CfgNode, get_cfg
from omegaconf import DictConfig, OmegaConf

from ..errors import FcosError
from ..options import keyed_fields
from ..zoo.tta import NONE, PRESETS, TTA
from .overrides import suggestion

__all__ = ["TTA_DEFAULTS", "add_keys", "node_of_yacs", "tta_from", "tta_of"]

_PRESET = "preset"
# A node `tta` that says nothing, so that overrides find its keys.
TTA_DEFAULTS: dict[str, Any] = {
    _PRESET: "", **{f.name: list(f.default) if isinstance(f.default, tuple) else f.default for f in fields(TTA)}
}  # fmt: skip


def add_keys(node: CfgNode) -> None:
    """Add to `TEST.AUG` what Detectron2 has no key for; its own keys keep its defaults."""
    node.setdefault("ENABLED", False)
    node.setdefault("PRESET", "")
    for key, field in keyed_fields(TTA).items():
        node.setdefault(key, field.default)


def node_of_yacs(cfg: CfgNode) -> dict[str, Any] | None:
    """The node `tta` for the keys `TEST.AUG.*`; `None` if they are not enabled.

    Raises:
        FcosError: a preset is named, and another key has been changed.
    """
    given = cfg.get("TEST", {}).get("AUG", {})
    if not given.get("ENABLED"):
        return None
    keys = {key: field.name for key, field in keyed_fields(TTA).items()}
    if not given.get("PRESET"):
        return {name: _plain(given[key]) for key, name in keys.items() if key in given}
    add_keys(defaults := get_cfg().TEST.AUG)
    for key in keys:
        if given[key] != defaults[key]:
            raise _mixed(f"TEST.AUG.PRESET is {given.PRESET!r}", f"TEST.AUG.{key}")
    return {_PRESET: given.PRESET}


def tta_of(cfg: DictConfig | CfgNode) -> TTA | None:
    """What a config of either system says: the node `tta`, or `TEST.AUG.*`; `None` for no augmentation.

    Raises:
        FcosError: a key is unknown, or a value is not what it must be.
    """
    if isinstance(cfg, CfgNode):
        return tta_from(node_of_yacs(cfg))
    node: Any = cfg.get("tta")
    plain: Any = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    return tta_from(plain)


def tta_from(given: TTA | Mapping[str, Any] | str | bool | None) -> TTA | None:
    """A setting said in any of the ways in which one can be said; `None` for no augmentation.

    Args:
        given: fields of `TTA`, or {"preset": name}; the name of a preset, or "none"; `False` and `None` for none.
    Raises:
        FcosError: there is no such preset, a field is unknown, or a value is not what it must be.
    """
    if given is None or given is False or given == NONE:
        return None
    if isinstance(given, TTA):
        return given
    if isinstance(given, str):
        if given not in PRESETS:
            names = ", ".join([NONE, *PRESETS])
            raise FcosError(f"There is no preset {given!r} of test-time augmentation; there are: {names}.")
        return PRESETS[given].tta
    if not isinstance(given, Mapping):
        raise FcosError(f"tta is {given!r}; it must be the name of a preset or a node, for example {{scales: [1.5]}}.")
    known = {field.name: field.default for field in fields(TTA)}
    if unknown := [str(key) for key in given if key not in {_PRESET, *known}]:
        raise FcosError(f"The config has the unknown key tta.{unknown[0]}{suggestion(unknown[0], list(known))}")
    own = {name: value for name, value in given.items() if name in known}
    if not (name := given.get(_PRESET)):
        return TTA(**own)
    for key, value in own.items():
        if _plain(value) != _plain(known[key]):
            raise _mixed(f"tta.preset is {name!r}", f"tta.{key}")
    return tta_from(str(name))


def _mixed(preset: str, key: str) -> FcosError:
    return FcosError(f"{preset}, which is taken as it is, so {key} has no effect: leave one of them out.")


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
