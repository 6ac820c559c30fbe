"""Norms in channels_last on the CPU, beside float64: `python -m projects_tools.bench.norms`.

For each norm, shape and mean (at unit deviation): the largest error of output and gradient of the input, of PyTorch's
kernel for contiguous maps, of its kernel for channels_last, and of ours there; and the time of forward and backward,
ours over PyTorch's, both in channels_last.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import click
import torch
from torch import Tensor, nn

from fcos_d2.modeling.exact_norm import BatchNorm2d, GroupNorm
from projects_tools.bench.peers import Job
from projects_tools.bench.timing import alternate

__all__ = ["SHAPES", "Row", "measure", "table"]

# P3 to P7 and the stem of an image of 800x1216.
LEVELS = [(1, 256, 100, 152), (1, 256, 50, 76), (1, 256, 25, 38), (1, 256, 13, 19), (1, 256, 7, 10)]
STEM = (1, 64, 400, 608)
SHAPES = {"GroupNorm": [*LEVELS, STEM], "BatchNorm": [LEVELS[0], LEVELS[2], STEM]}
MEANS = (0, 1, 10, 100)
_NORMS: dict[str, tuple[Callable[[int], nn.Module], Callable[[int], nn.Module]]] = {
    "GroupNorm": (lambda channels: nn.GroupNorm(32, channels), lambda channels: GroupNorm(32, channels)),
    "BatchNorm": (nn.BatchNorm2d, BatchNorm2d),
}


@dataclass(frozen=True)
class Row:
    """Errors of (output, gradient of the input) in one setting.

    Attributes:
        norm, shape, mean: the setting.
        contiguous, before, ours: PyTorch in contiguous maps and in channels_last, ours in channels_last.
        time: ours over PyTorch's.
    """

    norm: str
    shape: tuple[int, ...]
    mean: float
    contiguous: tuple[float, float]
    before: tuple[float, float]
    ours: tuple[float, float]
    time: float


def measure(norm: str, shape: tuple[int, ...], mean: float, seconds: float = 1.0) -> Row:
    """One setting; `seconds` are spent on its times."""
    torch.manual_seed(0)
    theirs, ours = (build(shape[1]) for build in _NORMS[norm])
    values, grad = torch.randn(shape) + mean, torch.randn(shape)
    last = [t.contiguous(memory_format=torch.channels_last) for t in (values, grad)]
    exact = _step(_NORMS[norm][0](shape[1]).double(), values.double(), grad.double())

    def error(found: tuple[Tensor, Tensor]) -> tuple[float, float]:
        first, second = (float((a.double() - b).abs().max()) for a, b in zip(found, exact))
        return first, second

    jobs = [Job(lambda norm=norm: _step(norm, *last), lambda result: result) for norm in (theirs, ours)]
    found = [error(_step(theirs, values, grad)), *(error(job.run()) for job in jobs)]
    before, after = alternate(jobs, seconds)
    return Row(norm, shape, mean, *found, after.ratio(before))


def _step(norm: nn.Module, values: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    x = values.detach().requires_grad_()
    y = norm(x)
    y.backward(grad)
    assert x.grad is not None
    return y.detach(), x.grad


def table(rows: Iterator[Row]) -> Iterator[str]:
    """Lines of Markdown, as they are measured."""
    yield "| norm | maps | mean | contiguous | channels_last before | channels_last now | time of now / before |"
    yield "|---|---|---:|---|---|---|---:|"
    for row in rows:
        errors = (" and ".join(f"{e:.1e}" for e in pair) for pair in (row.contiguous, row.before, row.ours))
        shape = "x".join(map(str, row.shape))
        yield f"| {row.norm} | {shape} | {row.mean} | {' | '.join(errors)} | {row.time:.2f} |"


@click.command("python -m projects_tools.bench.norms", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True, help="Threads of PyTorch.")
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True, help="For each row."
)
def command(threads: int, seconds: float) -> None:
    """Errors of norms in channels_last on the CPU (output and gradient of the input), and their times."""
    torch.set_num_threads(threads)
    settings = [(norm, shape, mean) for norm, shapes in SHAPES.items() for shape in shapes for mean in MEANS]
    for line in table(measure(*setting, seconds) for setting in settings):
        click.echo(line)
        sys.stdout.flush()


if __name__ == "__main__":
    command()
