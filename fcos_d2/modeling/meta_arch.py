"""FCOS as a one-stage detector of Detectron2."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor

from ..options import read_config
from ..structures import Detections, GroundTruth, Predictions, sent
from .dense import DenseFCOS
from .inputs import check_images, ground_truth, naming_small_images, without_waiting
from .rewrite import rewrite, rewrites_of, with_exact_norms
from .rewrite.invariant import Padding, hide_padding, is_prepared, running
from .whole_batch import WholeBatch, padded_size


@META_ARCH_REGISTRY.register()
class FCOS(DenseDetector):
    """FCOS: Fully Convolutional One-Stage Object Detection (arXiv:1904.01355).

    Preprocessing, padding and rescaling are those of Detectron2's `DenseDetector`; `DenseFCOS` does the rest.

    Args:
        backbone: returns {name: feature map}, e.g. Detectron2's `FPN`. Of one with PyTorch's own norms the detector has
            a copy, with its tensors, whose norms are exact in channels_last.
        dense: head, assigner, losses and selection.
        num_classes: K; checked against the head.
        in_features: names of the feature maps to predict on, finest first; by default all that the backbone has.
        pixel_mean, pixel_std: of the channels, in the range 0..255 and the order of `input_format`.
        input_format: "BGR" or "RGB"; used by those who read images for the model.
        inclusive_far_corner: boxes end at x + w - 1, as those of the original FCOS do, instead of at x + w: at its far
            corner, ground truth loses a pixel of the original image on the way in, and detections gain one on the way
            out.
        keep_empty: report detections without area, too, which Detectron2 drops. A detection that has gained a pixel
            always has one.
        batch_invariant: padding never changes a detection: an image has the same boxes alone and in any batch (see
            `rewrite/invariant.py`). Backbone and head are then prepared copies that share the tensors of the given
            ones. Training is as without it.
        one_by_one: with `batch_invariant`, run the images of a batch one after the other, which leaves no rounding;
            `None` does so on the CPU, where a batch gains little.

    Raises:
        ValueError: `num_classes` is not the head's; a feature is unknown to the backbone or its channels do not suit; a
            part cannot be made batch invariant.
    """

    backbone: Backbone

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        dense: DenseFCOS,
        num_classes: int,
        in_features: Sequence[str] | None = None,
        pixel_mean: Sequence[float] = (103.53, 116.28, 123.675),
        pixel_std: Sequence[float] = (1.0, 1.0, 1.0),
        input_format: str = "BGR",
        inclusive_far_corner: bool = False,
        keep_empty: bool = False,
        batch_invariant: bool = False,
        one_by_one: bool | None = None,
    ) -> None:
        names = None if in_features is None else list(in_features)
        backbone, dense = with_exact_norms(backbone), with_exact_norms(dense)
        super().__init__(backbone, dense, names, pixel_mean=list(pixel_mean), pixel_std=list(pixel_std))
        del self.head  # the base class calls its second argument so; here the head is a part of `dense`
        self.dense = dense
        self.num_classes = num_classes
        self.input_format = input_format
        self.strides = feature_strides(backbone, self.head_in_features, dense)
        head_classes = getattr(dense.head, "num_classes", num_classes)
        if head_classes != num_classes:
            raise ValueError(
                f"The model has num_classes={num_classes}, but its head has {head_classes}: set only model.num_classes."
            )
        self.inclusive_far_corner, self.keep_empty = inclusive_far_corner, keep_empty
        self.batch_invariant = batch_invariant
        self.one_by_one = one_by_one

    @property
    def batch_invariant(self) -> bool:
        """Whether padding changes no detection. Setting it does what the argument does, with its errors."""
        return self._batch_invariant

    @batch_invariant.setter
    def batch_invariant(self, wanted: bool) -> None:
        self._batch_invariant = False
        if wanted and not is_prepared(self):
            prepared: Any = rewrite(self, invariant=True, share_tensors=True)
            self.backbone, self.dense, self.rewrites = prepared.backbone, prepared.dense, rewrites_of(prepared)
        self._batch_invariant = bool(wanted)

    @classmethod
    def from_config(cls, cfg) -> dict[str, Any]:
        return read_config("FCOS", cfg)

    def preprocess_image(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """Normalize, pad and join the images of a batch, as Detectron2 does."""
        return super().preprocess_image(without_waiting(batched_inputs, self.device))

    def whole_batch(self, batched_inputs: list[dict[str, Any]]) -> WholeBatch | None:
        """What `forward` needs in order to compute a training batch in parts; `None` if the loss cannot.

        Raises:
            ValueError: an image or its annotations are unusable; the message names the image.
        """
        if not hasattr(self.dense.loss, "count"):
            return None
        check_images(batched_inputs)
        return WholeBatch(padded_size(batched_inputs, self.backbone), self._ground_truth(batched_inputs))

    def forward(
        self, batched_inputs: list[dict[str, Any]], whole: WholeBatch | None = None
    ) -> dict[str, Tensor] | list[dict[str, Instances]]:
        """Losses while training, else detections in the pixels of the original images.

        Args:
            batched_inputs: what Detectron2's `DatasetMapper` gives: "image" (C, H, W) tensor in 0..255; "instances"
                while training; "height", "width" of the wanted output.
            whole: the batch that these inputs are a part of, see `whole_batch`; the losses of its parts add up.
        Returns:
            {name: loss}, or for each image {"instances": `Instances` with pred_boxes, scores, pred_classes, locations}.
        Raises:
            ValueError: an image or its annotations are unusable; the message names the image.
        """
        check_images(batched_inputs)
        if torch.jit.is_tracing():
            sizes = ", ".join(f"{x['image'].shape[-1]}x{x['image'].shape[-2]}" for x in batched_inputs)
            warnings.warn(f"A trace of FCOS is right for images of the traced size only ({sizes}).", stacklevel=2)
        if not self.training:
            return self.reported(self.found(batched_inputs), batched_inputs)
        predictions, _ = self._predictions(batched_inputs, whole=whole)
        return self.dense.losses(predictions, self._ground_truth(batched_inputs), whole)

    def found(self, batched_inputs: list[dict[str, Any]], selector: Any = None) -> list[Instances]:
        """Detections of each image in pixels of the network input, before its original size and its borders count.

        Args:
            batched_inputs: as those of `forward`, checked.
            selector: used instead of the detector's own.
        """
        one_by_one = self.device.type == "cpu" if self.one_by_one is None else self.one_by_one
        if self.batch_invariant and one_by_one and len(batched_inputs) > 1:
            # How sums are rounded depends on the shapes of maps: only equal shapes give equal bits.
            return [found for inputs in batched_inputs for found in self.found([inputs], selector)]
        predictions, image_sizes = self._predictions(batched_inputs, self.batch_invariant)
        found = self.dense.detect(predictions, image_sizes, selector)
        return as_instances(found, predictions.locations.xy[found.location], image_sizes)

    def reported(self, found: list[Instances], batched_inputs: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        """What `forward` returns, from what `found` does."""
        sizes = [
            (inputs.get("height", x.image_size[0]), inputs.get("width", x.image_size[1]))
            for x, inputs in zip(found, batched_inputs)
        ]
        in_originals = as_reported(found, sizes, self.inclusive_far_corner, self.keep_empty)
        return [{"instances": x} for x in in_originals]

    def _predictions(
        self, batched_inputs: list[dict[str, Any]], invariant: bool = False, whole: WholeBatch | None = None
    ) -> tuple[Predictions, list[tuple[int, int]]]:
        """Head outputs, without candidates in the padding if it is not to count, and sizes of the network inputs."""
        images = self.preprocess_image(batched_inputs)
        images = images if whole is None else whole.pad(images)
        size = tuple(images.tensor.shape[-2:])
        padding = Padding(images.image_sizes, size) if invariant else None
        with running(padding), naming_small_images(images.image_sizes):
            features = self.backbone(self._laid_out(images.tensor))
            predictions = self.dense([features[name] for name in self.head_in_features], self.strides, size)
        if padding is not None:
            hide_padding(padding, predictions.logits)
        return predictions, images.image_sizes

    def _ground_truth(self, batched_inputs: list[dict[str, Any]]) -> GroundTruth:
        return ground_truth(batched_inputs, self.num_classes, self.device, self.inclusive_far_corner)

    def optimize(self, precision: str | Mapping[str, str] = "fp32", compile: bool = False) -> FCOS:
        """A copy that detects the same, faster, but can be neither trained nor saved: `rewrite` with `fuse`.

        Args:
            precision: "fp32", "bf16" or "fp16" of the convolutions of backbone and head, or of each, e.g. {"backbone":
                "bf16"}; the last convolutions of the head, scores and boxes are float32 in any case.
            compile: put backbone and head through `torch.compile`, on CUDA with CUDA graphs; the first image of each
                size then takes minutes.
        """
        made: Any = rewrite(self, fuse=True, precision=precision, compile=compile)
        return made

    def _laid_out(self, images: Tensor) -> Tensor:
        """The batch in the memory format that convolutions are fast in; what follows keeps it."""
        return images.contiguous(memory_format=torch.channels_last) if images.device.type == "cpu" else images


class OneStageDetector(FCOS):
    """`FCOS` under the name that AdelaiDet's YAML files give."""

    @classmethod
    def from_config(cls, cfg) -> dict[str, Any]:
        name = cfg.MODEL.PROPOSAL_GENERATOR.NAME
        if name not in ("FCOS", "FCOSProposals"):
            raise ValueError(
                f"MODEL.PROPOSAL_GENERATOR.NAME is {name!r}, but a OneStageDetector of fcos_d2 is FCOS: set 'FCOS'."
            )
        return super().from_config(cfg)


# AdelaiDet registers a detector of this name, too; whoever has imported it keeps it.
if "OneStageDetector" not in META_ARCH_REGISTRY:
    META_ARCH_REGISTRY.register(OneStageDetector)


def feature_strides(backbone: Backbone, names: Sequence[str], dense: DenseFCOS) -> list[int]:
    """Strides of the feature maps that a head predicts on.

    Raises:
        ValueError: the backbone has no such feature, or the head wants other channels or another number of levels.
    """
    shapes = backbone.output_shape()
    channels, levels = (getattr(dense.head, "in_channels", None), getattr(dense.head, "num_levels", None))
    for name in names:
        if name not in shapes:
            raise ValueError(f"in_features names {name!r}, but the backbone has: {', '.join(shapes)}.")
        if channels is not None and shapes[name].channels != channels:
            raise ValueError(f"The head wants {channels} channels, but feature {name!r} has {shapes[name].channels}.")
    if levels is not None and levels != len(names):
        raise ValueError(
            f"The head was built for {levels} levels, but in_features has {len(names)}: {', '.join(names)}."
        )
    return [shapes[name].stride for name in names]


def as_instances(found: Detections, xy: Tensor, image_sizes: Sequence[tuple[int, int]]) -> list[Instances]:
    """Split the detections of a batch into one `Instances` for each image, in pixels of the network input.

    Args:
        found: P detections.
        xy: (P, 2) location each was predicted at, pixels.
        image_sizes: (height, width) of each image before padding.
    """
    columns = (found.boxes, found.scores, found.classes, xy)
    if torch.jit.is_tracing():  # which would keep the numbers of boxes
        columns_of_each = [[x[found.image == i] for x in columns] for i in range(len(image_sizes))]
    else:
        counts = found.counts
        if counts is None:
            counts = torch.bincount(found.image, minlength=len(image_sizes)).tolist()
        columns_of_each = list(map(list, zip(*(x.split(counts) for x in columns))))
    return [
        Instances(tuple(size), pred_boxes=Boxes(boxes), scores=scores, pred_classes=classes, locations=at)
        for size, (boxes, scores, classes, at) in zip(image_sizes, columns_of_each)
    ]


def of_original(found: Instances, size: Any, inclusive_far_corner: bool) -> Instances:
    """Detections of a network input in pixels of the original image, as Detectron2's `detector_postprocess` makes them;
    those without area are still there.

    Args:
        found: of one image, with `pred_boxes`, which are changed.
        size: (height, width) of the original image, numbers or tensors of a traced input.
        inclusive_far_corner: see `FCOS`.
    """
    (height, width), boxes = found.image_size, found.pred_boxes
    boxes.scale(size[1] / width, size[0] / height)
    if isinstance(size[0], Tensor):  # a traced input
        size = torch.stack(size)
    if boxes.device.type == "cpu":
        boxes.clip(size)
    else:  # without the question whether all are finite
        boxes.tensor[:, 0::2].clamp_(0, size[1])
        boxes.tensor[:, 1::2].clamp_(0, size[0])
    if inclusive_far_corner:
        boxes.tensor[:, 2:] += 1.0
    return Instances(size, **found.get_fields())


def as_reported(
    found: list[Instances], sizes: Sequence[Any], inclusive_far_corner: bool, keep_empty: bool
) -> list[Instances]:
    """Detections of network inputs as a detector reports them: in pixels of the original images.

    Args:
        found: of each image, with `pred_boxes`, which are changed.
        sizes: (height, width) of each original image.
        inclusive_far_corner, keep_empty: see `FCOS`.
    """
    scaled = [of_original(x, size, inclusive_far_corner) for x, size in zip(found, sizes)]
    return scaled if empty_stay(inclusive_far_corner, keep_empty) else with_area(scaled)


def empty_stay(inclusive_far_corner: bool, keep_empty: bool) -> bool:
    """Whether a detector of these options reports boxes without area: one that adds a pixel to them has none."""
    return keep_empty or inclusive_far_corner


def with_area(found: list[Instances]) -> list[Instances]:
    """The detections of each image without those whose boxes have no area; a GPU is asked once for all images."""
    if torch.jit.is_tracing():  # which would keep the numbers of boxes
        return [x[x.pred_boxes.nonempty()] for x in found]
    large = torch.cat([x.pred_boxes.nonempty() for x in found]).cpu().split([len(x) for x in found])
    rows = [
        None if bool(some.all()) else sent(some.nonzero().squeeze(1), x.scores.device) for x, some in zip(found, large)
    ]
    return [x if those is None else x[those] for x, those in zip(found, rows)]
