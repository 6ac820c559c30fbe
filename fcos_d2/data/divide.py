"""Which part of a data set an image belongs to: by the hash of its name, in groups, or with equal shares of classes."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..errors import FcosError
from .meant import shown

__all__ = ["divide", "grouping", "place"]


def place(name: str) -> float:
    """A number in 0..1 that depends on a name alone."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big") / 2**64


def grouping(rule: str | None) -> Callable[[str], str]:
    """The group of a file name: "folder", the folder it lies in; else what the first group of a pattern finds in it.

    A name in which the pattern finds nothing is a group of its own, and so is each name without a rule.

    Raises:
        FcosError: the rule is no regular expression.
    """
    if rule is None:
        return lambda name: name
    if rule == "folder":
        return lambda name: posixpath.dirname(name.replace("\\", "/"))
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise FcosError(
            f"The rule {rule!r} for groups is neither 'folder' nor a regular expression: {error}."
        ) from error

    def group(name: str) -> str:
        found = pattern.search(name)
        return (found[1] if pattern.groups else found[0]) or name if found else name

    return group


def divide(
    names: Sequence[str], shares: Mapping[str, float], group: Callable[[str], str] = lambda name: name,
    labels: Sequence[Iterable[object]] | None = None,
) -> list[str]:  # fmt: skip
    """Divide images into train and other parts.

    Without `labels`, the part depends on the hash of the group's name alone, so that images which are added later move
    no other; val has the images that `--val-fraction` takes, whatever the share of test. Where that leaves a part
    empty, it gets the group that is nearest to it. With `labels` the classes have about equal shares of their boxes in
    each part (iterative stratification, Sechidis et al. 2011, rarest class first); which images, their names decide.

    Args:
        names: file names of the images.
        shares: "val" and "test" -> the share of the images, in (0, 1) together; the rest is "train".
        group: groups of names that are not parted.
        labels: the classes of each image's boxes, for equal shares of classes.
    Returns:
        The part of each image.
    Raises:
        FcosError: shares are out of range, or there are fewer groups than parts.
    """
    if not shares or min(shares.values()) <= 0 or sum(shares.values()) >= 1:
        told = ", ".join(f"{part} {share:g}" for part, share in shares.items()) or "none"
        raise FcosError(f"The shares of the parts are {told}; each must be above 0, and their sum below 1.")
    members: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        members[group(name)].append(index)
    if len(members) <= len(shares):
        what = f"{len(names)} images" if len(members) == len(names) else f"{len(members)} groups of images"
        first = f", the first: {shown(next(iter(members)))}" if members else ""
        raise FcosError(f"{what} cannot be divided into {len(shares) + 1} parts{first}.")
    order = sorted(members, key=lambda key: (place(key), key))
    if labels is None:
        chosen = _by_hash(order, shares)
    else:
        counts = {key: Counter(label for index in members[key] for label in labels[index]) for key in order}
        chosen = _stratified(order, {key: len(members[key]) for key in order}, counts, shares)
    found = [""] * len(names)
    for key, indices in members.items():
        for index in indices:
            found[index] = chosen[key]
    return found


def _by_hash(order: Sequence[str], shares: Mapping[str, float]) -> dict[str, str]:
    """The part of each group; `order` is that of their places."""
    val, test = shares.get("val", 0.0), shares.get("test", 0.0)
    found = {key: "val" if place(key) < val else "test" if place(key) >= 1 - test else "train" for key in order}
    ends = {"val": order, "test": order[::-1], "train": order[::-1] if "val" in shares else order}
    for part in (*shares, "train"):
        held = Counter(found.values())
        if not held[part]:  # the nearest that no part would miss
            found[next(key for key in ends[part] if held[found[key]] > 1)] = part
    return found


def _stratified(
    order: Sequence[str], sizes: Mapping[str, int], counts: Mapping[str, Counter], shares: Mapping[str, float]
) -> dict[str, str]:
    """The part of each group; `sizes` are its images, `counts` its boxes of each class."""
    every = {"train": 1 - sum(shares.values()), **shares}
    total: Counter = sum(counts.values(), Counter())
    wanted = {part: {label: share * count for label, count in total.items()} for part, share in every.items()}
    images = {part: share * sum(sizes.values()) for part, share in every.items()}
    left, found = dict.fromkeys(order), {}
    holders = defaultdict(list)
    for key in order:
        for label in counts[key]:
            holders[label].append(key)

    def put(key: str, part: str) -> None:
        found[key] = part
        del left[key]
        images[part] -= sizes[key]
        for label, count in counts[key].items():
            wanted[part][label] -= count
            total[label] -= count

    while left:
        empty = [part for part in every if part not in found.values()]
        if len(left) <= len(empty):  # no part stays empty
            put(next(iter(left)), empty[0])
            continue
        rarest = min(
            (label for label in total if total[label] > 0), key=lambda one: (total[one], str(one)), default=None
        )
        key = next(key for key in (left if rarest is None else holders[rarest]) if key in left)
        needs = {part: (wanted[part].get(rarest, 0.0), images[part]) for part in every}
        put(key, max(every, key=lambda part: needs[part]))
    return found
