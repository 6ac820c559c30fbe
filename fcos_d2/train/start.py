"""Which weights a training starts from, and the sentence that says which and why.

Where nobody names weights, those of the whole variant come first, trained on COCO, then ImageNet weights of its
backbone, then none. No network, or none that answers within seconds, is a reason and not an error.
"""

from __future__ import annotations

import copy
import os
import queue
import socket
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

from detectron2.config import instantiate
from omegaconf import DictConfig

from .. import zoo
from ..config.load import is_code, is_data
from ..config.overrides import apply_lazy
from ..errors import FcosError
from ..hub import folder_of, is_offline, place_of, row_of
from ..hub.kept import found_elsewhere
from ..weights.classes import names_of, pairs
from ..weights.families import FAMILIES
from ..weights.fetch import fetch, is_address, is_backbone_only
from ..weights.fit import load_model
from ..weights.published import imported, num_classes_of
from ..weights.read import read
from ..zoo.addresses import Address

__all__ = ["Start", "choose_start", "classes_kept", "model_of"]

_PATIENCE = 3.0  # seconds in which a host must answer
# ImageNet weights that suit backbones whose published rows start from scratch.
_FOR_SCRATCH = dict.fromkeys(("R_18_FPN", "R_18_FPN_6l"), "torchvision://resnet18")


@dataclass(frozen=True)
class Start:
    """Where training starts.

    Attributes:
        kind: a key of `PRESETS`: "detector", "backbone" or "scratch".
        weights: file, address or variant whose weights are taken; empty from scratch.
        said: one sentence for the user.
        why: from scratch, in half a sentence.
    """

    kind: str
    weights: str
    said: str
    why: str = ""


def model_of(weights: str) -> str | None:
    """What to train where only weights are named: the config that they hold, or their variant; None of a backbone.

    Raises FcosError if they are a detector's of which nobody can tell the variant.
    """
    if not is_address(weights) and not Path(weights).expanduser().is_file():
        return zoo.find(weights).full_name
    if is_backbone_only(weights):
        return None
    found = read(fetch(weights))
    if found.config is not None:
        return str(fetch(weights))
    return imported(found).config_name if found.kind in FAMILIES else None


def choose_start(asked: str | None, model: str, cfg: DictConfig, overrides: Sequence[str] = ()) -> Start:
    """Decide which weights to start from.

    Args:
        asked: file, address, variant, "none" for scratch, or None where nobody has said.
        model: the variant, config file or checkpoint that is trained, and `cfg` its config.
        overrides: of the config; where they change the model, weights that do not suit it any more are passed over.
    Raises:
        FcosError: weights that were asked for cannot be had.
    """
    if asked == "none":
        return Start("scratch", "", "Training starts from scratch, as --weights none asks.")
    if asked:
        return _read(asked, f"{asked}, as --weights asks")
    if is_code(model) or is_data(model):  # a config of the user's own says it
        if given := cfg.train.init_checkpoint:
            return _read(given, f"{given}, as {model} says")
        return Start("scratch", "", f"Training starts from scratch: {model} names no weights.")
    trial = _Trial(cfg, [text for text in overrides if text.lower().startswith("model.")])
    reasons = [] if zoo.published(model) else [f"nobody has published weights of {zoo.find(model).name}"]
    for name, title in _candidates(zoo.find(model), cfg):
        if not (reason := _missing(name) or trial.refuses(name)):
            return _read(name, title)
        reasons.append(f"{title}: {reason}")
    why = "; ".join(reasons)
    hint = "" if zoo.published(model) else f" (--model {zoo.DEFAULT} starts from COCO weights)"
    return Start("scratch", "", f"Training starts from scratch: {why}{hint}.", why)


def _candidates(variant: zoo.Variant, cfg: DictConfig) -> Iterator[tuple[str, str]]:
    """Weights to start a variant from, best first: their name, and what to call them."""
    if row := zoo.published(variant.full_name):
        yield variant.full_name, f"COCO weights of {variant.name} ({row.terms})"
    if weights := cfg.train.init_checkpoint or _FOR_SCRATCH.get(variant.backbone, ""):
        yield weights, f"ImageNet weights of its backbone, {weights}"


def _missing(name: str) -> str:
    """Why weights cannot be had here and now; empty if their file is here, after fetching it if need be."""
    row = row_of(name)
    if row is not None and not _is_here(row) and not os.environ.get("FCOS_D2_MIRROR"):
        if row.is_dead:
            return f"no program can fetch them ({row.reason})"
        if all(map(is_offline, row.urls)):
            return "the network is not to be used, and they are not in the cache"
        if silent := _silent(row.urls):
            return silent
    try:
        fetch(name)
    except FcosError as error:
        return str(error).rstrip(".")
    return ""


def _is_here(row: Address) -> bool:
    """Whether a published file is in a cache folder."""
    place = place_of(row)
    return (folder_of(place) / place).is_file() or found_elsewhere(row) is not None


def _silent(addresses: Sequence[str]) -> str:
    """That no host of some addresses answers; empty if one does, or if something stands between it and this machine."""
    hosts = {urlparse(url).hostname or "" for url in addresses if url.startswith("http")} - {""}
    if not hosts or urllib.request.getproxies():
        return ""
    answers: queue.SimpleQueue[bool] = queue.SimpleQueue()
    for host in hosts:  # a resolver without network may take long, and cannot be asked to stop
        threading.Thread(target=_knock, args=(host, answers), daemon=True).start()
    with suppress(queue.Empty):
        if any(answers.get(timeout=_PATIENCE) for _ in hosts):
            return ""
    return f"{' and '.join(sorted(hosts))} cannot be reached from here"


def _knock(host: str, answers: queue.SimpleQueue[bool]) -> None:
    """Tell whether a host answers."""
    try:
        socket.create_connection((host, 443), timeout=_PATIENCE).close()
        answers.put(True)
    except OSError:
        answers.put(False)


class _Trial:
    """Whether weights that nobody asked for suit a model that the user has changed."""

    def __init__(self, cfg: DictConfig, changes: Sequence[str]) -> None:
        self._cfg, self._changes = cfg, changes

    def refuses(self, name: str) -> str:
        """Why they do not; empty if they do, or if the model is the published one."""
        if not self._changes:
            return ""
        cfg = apply_lazy(copy.deepcopy(self._cfg), self._changes)
        try:
            load_model(instantiate(cfg.model), name, classes="drop", allow_backbone=True, other_recipe="warn")
        except FcosError as error:
            return str(error).rstrip(".")
        return ""


def _read(name: str, title: str) -> Start:
    """The start from weights that are here; raises FcosError if they are not, or cannot be read."""
    if not is_address(name) and not Path(name).expanduser().is_file() and zoo.published(name):
        name = zoo.find(name).full_name
    backbone = is_backbone_only(name) or read(fetch(name)).kind == "backbone"
    return Start("backbone" if backbone else "detector", name, f"Training starts from {title}.")


def classes_kept(start: Start, class_names: Sequence[str], new_classes: bool = False) -> str:
    """What the weights of a start know of the data's classes, in a sentence; empty if they are no detector's."""
    if start.kind != "detector":
        return ""
    weights = read(fetch(start.weights))
    count = num_classes_of(weights)
    there = None if new_classes or not count else names_of(weights, count)
    kept = pairs(there or (), class_names)
    which = ", ".join(class_names[i] for i in sorted(kept)[:5]) + (", ..." if len(kept) > 5 else "")
    if there and len(kept) == len(class_names):
        return "Its class layer knows all classes of the data."
    if kept:
        others = len(class_names) - len(kept)
        anew = "the other class starts anew" if others == 1 else f"the other {others} classes start anew"
        return f"Its class layer keeps what it knows of {which}; {anew}."
    if there is None and not new_classes and count == len(class_names):
        return f"Its {count} classes have no names and are taken for the data's."
    return "Its class layer starts anew."
