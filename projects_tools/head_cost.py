"""Time and memory of heads side by side: `python -m projects_tools.head_cost improved fad`.

In one process and in turns, so that what disturbs the machine disturbs all of them. Random maps stand for the backbone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import click
import torch
from detectron2.config import instantiate
from torch import Tensor, nn

from fcos_d2.config.compose import compose
from projects_tools.bench.peers import Job
from projects_tools.bench.timing import alternate

STRIDES = (8, 16, 32, 64, 128)


def detect(head: nn.Module, features: Sequence[Tensor]) -> None:
    with torch.inference_mode():
        head(features)


def learn(head: nn.Module, features: Sequence[Tensor]) -> None:
    sum(x.square().mean() for maps in head(features) for x in maps).backward()


def kept(head: nn.Module, features: Sequence[Tensor]) -> int:
    """Bytes that a training step keeps for its backward pass, the head's own tensors left out."""
    own = {x.untyped_storage().data_ptr() for x in (*head.parameters(), *features)}
    found: dict[int, torch.UntypedStorage] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        outputs = head(features)
    size = sum(storage.nbytes() for storage in found.values())
    del outputs
    return size


@click.command()
@click.argument("recipes", nargs=-1, required=True)
@click.option("--backbone", default="R_50_FPN", show_default=True)
@click.option("--size", default="400x672", show_default=True, help="Height and width of the image, pixels.")
@click.option("--seconds", default=60.0, show_default=True, help="To spend on inference, and on training.")
def command(recipes: Sequence[str], backbone: str, size: str, seconds: float) -> None:
    """Measure the heads of RECIPES; ratios are those to the first."""
    height, width = map(int, size.split("x"))
    heads = [instantiate(compose(recipe, backbone, "1x").model).dense.head for recipe in recipes]
    channels = heads[0].in_channels
    features = [torch.randn(1, channels, -(-height // s), -(-width // s)) for s in STRIDES]
    columns = []
    for work in (detect, learn):
        jobs = [Job(partial(work, head, features), answer=lambda found: found) for head in heads]
        for job in jobs:
            job.run()
        columns.append(alternate(jobs, seconds))
    sizes = [kept(head, features) for head in heads]
    for recipe, run, step, size_ in zip(recipes, *columns, sizes):
        ratios = run.ratio(columns[0][0]), step.ratio(columns[1][0]), size_ / sizes[0]
        click.echo(
            f"{recipe}: inference {run.median:.3f} s, training {step.median:.3f} s, kept {size_ / 2**20:.0f} MiB; "
            f"{', '.join(f'{ratio:.2f}x' for ratio in ratios)} of {recipes[0]}"
        )


if __name__ == "__main__":
    command()
