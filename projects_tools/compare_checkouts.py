"""Compare two checkouts of this project: does every variant of the zoo give the same numbers in both?

    python projects_tools/compare_checkouts.py OLD NEW [--variant NAME ...]

OLD and NEW are folders, for example worktrees made by `git worktree add OLD COMMIT`. Each runs in a process of its own.
Compared are the names and shapes of the state dict, the losses, the gradient of every parameter, and the detections of
a small batch whose images differ in size. Weights follow from their names alone, so that the order in which parts are
made does not matter. The exit code is 1 if anything differs.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

SIZES = ((96, 128), (128, 80))  # (height, width) of the two images, pixels


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, help="a checkout")
    parser.add_argument("new", type=Path, help="another one")
    parser.add_argument("--variant", action="append", help="name in the zoo, repeatable; by default all of OLD")
    parser.add_argument("--record", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.record:
        record(Path(options.record), options.variant)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        names = options.variant or variants(options.old)
        sides = [Path(folder, side) for side in ("old", "new")]
        runs = [start(root, side, names) for root, side in zip((options.old, options.new), sides)]
        for run in runs:
            run.wait()
        differing = 0
        for i, name in enumerate(names):
            files = [side / str(i) for side in sides]
            lacking = [side.name for side, file in zip(sides, files) if not file.is_file()]
            found = [f"no result of {' and '.join(lacking)}"] if lacking else differences(*files)
            differing += bool(found)
            print(f"{name}: {'; '.join(found) or 'equal'}", flush=True)
    print(f"{len(names)} variants, {differing} differ")
    return int(differing > 0)


def variants(root: Path) -> list[str]:
    """Names of all variants of a checkout."""
    line = "from fcos_d2 import zoo; print('\\n'.join(zoo.names()))"
    done = subprocess.run(
        [sys.executable, "-c", line],
        env=environment(root),
        check=True,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    return done.stdout.split()


def environment(root: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(root.resolve()), "OMP_NUM_THREADS": "1"}


def start(root: Path, folder: Path, names: list[str]) -> subprocess.Popen:
    command = [sys.executable, __file__, str(root), str(root), "--record", str(folder)]
    return subprocess.Popen(
        [*command, *(word for name in names for word in ("--variant", name))], env=environment(root)
    )


def record(folder: Path, names: list[str]) -> None:
    """Write what the checkout on the path gives for each variant."""
    import torch

    torch.set_num_threads(1)
    folder.mkdir()
    for i, name in enumerate(names):
        try:
            torch.save(results(name), folder / str(i))
        except Exception as error:  # the others are compared all the same
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)


def results(name: str) -> dict[str, Any]:
    """State dict, detections, losses and gradients of a variant with five classes."""
    import torch

    import fcos_d2  # noqa: F401  # isort: skip  # before detectron2
    from detectron2.config import instantiate

    from fcos_d2 import zoo

    torch.manual_seed(0)
    cfg = zoo.get_config(name)
    cfg.model.num_classes = 5
    model = instantiate(cfg.model)
    model.load_state_dict({key: value_of(key, value) for key, value in model.state_dict().items()})
    result: dict[str, Any] = {"state": {k: tuple(v.shape) for k, v in model.state_dict().items()}}
    with torch.no_grad():
        result["detections"] = [detections(x["instances"]) for x in model.eval()(batch())]
    model.train()
    for module in model.modules():  # on the CPU it cannot train, but normalizes by its running statistics
        if isinstance(module, torch.nn.SyncBatchNorm):
            module.eval()
    losses = model(batch(training=True))
    sum(losses.values()).backward()
    result["losses"] = {name: loss.detach() for name, loss in losses.items()}
    result["gradients"] = {n: summary(p.grad) for n, p in model.named_parameters() if p.grad is not None}
    return result


def summary(values: Any) -> Any:
    """Norm, and a number that changes with any bit, of a large tensor."""
    import torch

    digest = hashlib.sha256(values.contiguous().numpy().tobytes()).digest()[:6]
    return torch.tensor([float(values.double().norm()), float(int.from_bytes(digest, "big"))], dtype=torch.float64)


def value_of(name: str, like: Any) -> Any:
    """A weight that depends on its name and shape alone."""
    import torch

    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    if not like.is_floating_point() or name.endswith("loss.average"):
        return like
    if like.dim() > 1:
        return torch.randn(like.shape, generator=generator) * (2.0 / max(like[0].numel(), 1)) ** 0.5
    noise = torch.rand(like.shape, generator=generator)
    if name.endswith(("running_var", "scales")) or (name.endswith("weight") and like.dim() == 1):
        return 0.5 + noise
    return noise * 0.2 - 0.1


def batch(training: bool = False) -> list[dict[str, Any]]:
    import torch
    from detectron2.structures import Boxes, Instances

    generator = torch.Generator().manual_seed(1)
    inputs = []
    for height, width in SIZES:
        image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
        entry: dict[str, Any] = {"image": image, "height": height * 2, "width": width * 2}
        if training:
            corner = torch.rand(6, 2, generator=generator) * torch.tensor([width * 0.6, height * 0.6])
            side = 4 + torch.rand(6, 2, generator=generator) * torch.tensor([width * 0.4, height * 0.4])
            boxes = Boxes(torch.cat((corner, corner + side), dim=1))
            classes = torch.randint(0, 5, (6,), generator=generator)
            entry["instances"] = Instances((height, width), gt_boxes=boxes, gt_classes=classes)
        inputs.append(entry)
    return inputs


def detections(found: Any) -> dict[str, Any]:
    return {"boxes": found.pred_boxes.tensor, "scores": found.scores, "classes": found.pred_classes}


def differences(old: Path, new: Path) -> list[str]:
    """What differs between two records, in words."""
    import torch

    one, other = (torch.load(file, weights_only=True) for file in (old, new))
    found = []
    if one["state"] != other["state"]:
        names = sorted(set(one["state"].items()) ^ set(other["state"].items()))
        found.append(f"state dict: {len(names)} names or shapes, e.g. {names[0]}")
    for kind in ("losses", "gradients"):
        found += compare(kind, one.get(kind, {}), other.get(kind, {}))
    for i, (a, b) in enumerate(zip(one["detections"], other["detections"])):
        found += compare(f"detections of image {i}", a, b)
    return found


def compare(title: str, one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    if one.keys() != other.keys():
        return [f"{title}: {sorted(one.keys() ^ other.keys())[:3]} on one side only"]
    differing = [k for k in one if one[k].shape != other[k].shape or not one[k].equal(other[k])]
    if not differing:
        return []
    shapes = [k for k in differing if one[k].shape != other[k].shape]
    if shapes:
        return [f"{title}: {shapes[0]} has {tuple(one[shapes[0]].shape)} and {tuple(other[shapes[0]].shape)}"]
    if title == "gradients":  # the first number is a norm
        worst = max(float(abs(one[k][0] - other[k][0]) / one[k][0].clamp(min=1e-12)) for k in differing)
        return [f"{title}: {len(differing)} of {len(one)} differ, norms by at most {worst:.1e} of themselves"]
    worst = max(float((one[k].double() - other[k].double()).abs().max()) for k in differing)
    return [f"{title}: {len(differing)} of {len(one)} differ, by at most {worst:.1e}"]


if __name__ == "__main__":
    sys.exit(main())
