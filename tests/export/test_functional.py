"""Operators that write to their inputs: replaced where nobody can notice, and left to PyTorch where somebody can."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, batch_norm, conv2d, softshrink

from fcos_d2.export.functional import functional
from fcos_d2.export.shapes import Shapes
from fcos_d2.export.tracing import FORMATS


class Network(nn.Module):
    """Takes the inputs of an exported graph."""

    output_names = ("found",)

    def forward(self, images: Tensor, image_sizes: Tensor) -> tuple[Tensor]:
        return (self.made(images) + image_sizes.sum() * 0,)

    def made(self, images: Tensor) -> Tensor:
        raise NotImplementedError


class OnlyUser(Network):
    def made(self, images: Tensor) -> Tensor:
        return (images - 100).relu_().to(torch.float32).mul_(2)


class Untranslated(Network):
    """Operators that ONNX has when they are decomposed."""

    def made(self, images: Tensor) -> Tensor:
        return conv2d(softshrink(images / 100), torch.ones(4, 3, 1, 1)).relu_()


class Norms(Network):
    """Batch norm of given statistics, with and without weights, and the mean of a map."""

    def made(self, images: Tensor) -> Tensor:
        mean, var = torch.tensor([90.0, 100.0, 110.0]), torch.full((3,), 400.0)
        plain = batch_norm(images, mean, var)
        scaled = batch_norm(images, mean, var, torch.tensor([0.5, 1.0, 2.0]), torch.tensor([0.0, 1.0, -1.0]), eps=1e-3)
        return (plain * scaled + adaptive_avg_pool2d(images, 1)).relu_()


class ReadLater(Network):
    """Of what is written to the program knows the result alone."""

    def made(self, images: Tensor) -> Tensor:
        moved = images - 100
        return moved.relu_() + moved


class ReadBefore(Network):
    def made(self, images: Tensor) -> Tensor:
        moved = images - 100
        return moved * 2 + moved.relu_()


class ThroughView(Network):
    def made(self, images: Tensor) -> Tensor:
        moved = images - 100
        moved[:, 0].mul_(3)
        return moved


@pytest.mark.parametrize(
    ("kind", "whole"),
    [
        (OnlyUser, True),
        (Untranslated, True),
        (Norms, True),
        (ReadLater, True),
        (ReadBefore, False),
        (ThroughView, False),
    ],
)
def test_nobody_notices(kind: type[Network], whole: bool) -> None:
    """And the ONNX file is right either way."""
    network, shapes = kind().eval(), Shapes(32, 32, (32, 64), 1)
    images = torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(0)) * 255
    sizes = torch.tensor([[32, 64]])
    (expected,) = network(images.clone(), sizes)
    program = FORMATS["torch-export"].traced(network, shapes)
    assert functional(program) is whole
    np.testing.assert_array_equal(program.module()(images.clone(), sizes)[0], expected)
    made = FORMATS["onnx"].traced(network, shapes).SerializeToString()
    session = onnxruntime.InferenceSession(made, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images.numpy(), "image_sizes": sizes.numpy()})
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
