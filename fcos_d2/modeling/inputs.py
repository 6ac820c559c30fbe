"""Checks what comes from a data loader before it reaches the model, and names the image that is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import FcosError
from ..structures import GroundTruth, sent


def image_name(inputs: dict[str, Any], index: int) -> str:
    """How to call an image in a message: its file if known, else its position in the batch."""
    name = inputs.get("file_name") or inputs.get("image_id")
    return f"image {name}" if name is not None else f"image {index} of the batch"


def check_images(batched_inputs: Sequence[dict[str, Any]]) -> None:
    """Raise for images that no network can take.

    Raises:
        ValueError: an image has no pixels, another number of dimensions, or a value that is not finite.
    """
    for i, inputs in enumerate(batched_inputs):
        image = inputs["image"]
        if image.dim() != 3 or 0 in image.shape:
            raise ValueError(
                f"{image_name(inputs, i)} has the shape {tuple(image.shape)}; (channels, height, width), none of them "
                "0, is needed."
            )
        if torch.jit.is_tracing():
            continue
        if image.is_floating_point() and not bool(torch.isfinite(image.sum())) and not bool(image.isfinite().all()):
            raise ValueError(f"{image_name(inputs, i)} holds values that are not finite (NaN or infinity).")


@contextmanager
def naming_small_images(image_sizes: Sequence[Any]) -> Iterator[None]:
    """While a network runs, say in one sentence that a norm has a single value for each channel.

    Args:
        image_sizes: (height, width) of each image of the batch.
    Raises:
        FcosError: it has.
    """
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        height, width = (max(map(int, side)) for side in zip(*image_sizes))
        raise FcosError(
            f"A batch of {len(image_sizes)} images of at most {width}x{height} pixels leaves a norm of the network a "
            "single value for each channel, which it cannot normalize: give it larger images (fcos train: "
            "--image-size) or more at a time (--batch-size)."
        ) from error


def without_waiting(batched_inputs: Sequence[dict[str, Any]], device: torch.device) -> Sequence[dict[str, Any]]:
    """The inputs with their images on a GPU."""
    if device.type != "cuda":
        return batched_inputs
    return [{**x, "image": sent(x["image"], device)} for x in batched_inputs]


def pixel_size(inputs: dict[str, Any]) -> tuple[float, float]:
    """(width, height) that a pixel of the original image has in the network input, in its pixels.

    Args:
        inputs: "image" (C, H, W), and the original's "height" and "width" where they differ. Where an augmentation
            has cut a part out of the image, the part counts as the whole.
    """
    height, width = inputs["image"].shape[-2:]
    return width / inputs.get("width", width), height / inputs.get("height", height)


def ground_truth(
    batched_inputs: Sequence[dict[str, Any]],
    num_classes: int,
    device: torch.device,
    inclusive_far_corner: bool = False,
) -> GroundTruth:
    """Check the annotations of a batch on the device they are on, and join them without waiting for another device.

    Args:
        batched_inputs: each with `instances` (Detectron2 `Instances` with `gt_boxes` and `gt_classes`).
        num_classes: K.
        device: where the result goes.
        inclusive_far_corner: let boxes end one pixel of the original image earlier, see `FCOS`; needs each "image".
    Raises:
        ValueError: annotations are missing, a box is not finite, or a class is not in 0..K-1.
    """
    instances = []
    for i, inputs in enumerate(batched_inputs):
        if "instances" not in inputs:
            raise ValueError(f"{image_name(inputs, i)} has no 'instances': training needs annotations.")
        x = inputs["instances"]
        boxes, classes = x.gt_boxes.tensor, x.gt_classes
        if not bool(boxes.isfinite().all()):
            row = int((~boxes.isfinite().all(dim=1)).nonzero()[0])
            raise ValueError(f"{image_name(inputs, i)} has a box that is not finite: row {row}, {boxes[row].tolist()}.")
        wrong = (classes < 0) | (classes >= num_classes)
        if bool(wrong.any()):
            raise ValueError(
                f"{image_name(inputs, i)} has the class index {int(classes[wrong][0])}, but the model knows "
                f"{num_classes} classes (0..{num_classes - 1}): set num_classes to that of the data set."
            )
        instances.append(x)
    pixels = list(map(pixel_size, batched_inputs)) if inclusive_far_corner else None
    return GroundTruth.from_instances(instances, device, pixels)
