"""Classes of a file and classes of a model: which are the same, by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from .families import FAMILIES
from .families.torchvision import coco_names
from .read import Weights

__all__ = ["CLASS_LAYER", "keep_equal", "names_of", "pairs"]

CLASS_LAYER = ".cls_logits."


def names_of(weights: Weights, num_classes: int) -> list[str] | None:
    """Names of a file's classes by channel: those that it says, or COCO's for a published detector of 80 or 91."""
    if weights.class_names is not None:
        return list(weights.class_names) if len(weights.class_names) == num_classes else None
    return coco_names(num_classes) if weights.kind in FAMILIES else None


def pairs(there: Sequence[str], here: Sequence[str]) -> dict[int, int]:
    """Class here -> class there of the same name.

    Equal names come first; otherwise letter case and whatever is neither letter nor digit do not count ("Traffic
    light", "traffic_light"). A class there goes to one class here.
    """
    found: dict[int, int] = {}
    for plain in (str, _plain):
        places = {plain(name): i for i, name in reversed(list(enumerate(there))) if i not in found.values()}
        for i, name in enumerate(here):
            if i not in found and plain(name) and plain(name) in places:
                found[i] = places.pop(plain(name))
    return found


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def keep_equal(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], found: Mapping[int, int], classes: tuple[int, int]
) -> dict[str, Tensor]:
    """The state with a class layer of the model's size, in which classes of equal names have their channels.

    Args:
        own: the model's initial tensors, which the other channels keep.
        state: the file's, under the model's names.
        found: class of the model -> class of the file.
        classes: how many the model and the file have.
    """
    changed = dict(state)
    for name in own.keys() & state.keys():
        if CLASS_LAYER not in name:
            continue
        new = own[name].clone()
        to, source = (x.unflatten(0, (-1, count)) for x, count in zip((new, state[name]), classes))
        if to.shape[0] == source.shape[0] and to.shape[2:] == source.shape[2:]:
            for here, there in found.items():
                to[:, here] = source[:, there].to(to)
        changed[name] = new
    return changed
