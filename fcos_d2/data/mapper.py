"""Records of a data set -> inputs of a model: Detectron2's `DatasetMapper`, faster.

`FastMapper` gives the same pixels (but for 16 bits, which Detectron2 clips at 255), boxes and random numbers. The
image stays Pillow's until it is written once, plane
by plane, into the tensor; polygons are not copied unless masks are asked for; boxes are transformed all at once. What
it does not know (other augmentations, colour formats, masks, keypoints) is handed to Detectron2's code from there on.

Reading a JPEG and Pillow's resizing are then nearly all of the time. `CloseMapper` resizes with PyTorch's vectorised
kernel, whose weights have 16 bits where Pillow's have 22; so some pixels differ, see `PIXEL_TOLERANCE`.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetMapper, detection_utils
from detectron2.data import transforms as T
from detectron2.structures import Boxes, BoxMode, Instances
from detectron2.utils.file_io import PathManager
from fvcore.transforms.transform import HFlipTransform, NoOpTransform, Transform, VFlipTransform
from PIL import Image
from torch import Tensor

from .._compat import transform_annotations
from .images import named, open_image, rgb
from .loader import ImageError

__all__ = ["PIXEL_TOLERANCE", "CloseMapper", "FastMapper", "read_rgb"]

# Of 255, between `CloseMapper` and Detectron2's mapper. The two passes of a resize round to whole numbers; a row off by
# one after the first moves the second by at most one, whose own rounding may add one more.
PIXEL_TOLERANCE = 2

# Detectron2's augmentations that ask an image for nothing but its size.
_BY_SIZE = (T.ResizeShortestEdge, T.ResizeScale, T.Resize, T.RandomFlip)
# Pillow's by whether left and right, and top and bottom, change places.
_FLIPS = {
    (True, False): Image.Transpose.FLIP_LEFT_RIGHT,
    (False, True): Image.Transpose.FLIP_TOP_BOTTOM,
    (True, True): Image.Transpose.ROTATE_180,
}


class FastMapper(DatasetMapper):
    """Detectron2's mapper, its arguments and its results to the bit, in less time.

    A subclass that overrides `_transform_annotations` gets its annotations as it would from Detectron2's mapper.
    """

    exact = True  # the same pixels as Detectron2's mapper

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Read, augment and pack one image.

        Args:
            dataset_dict: a record in Detectron2's form; stays as it is.
        Returns:
            The record with "image", (3, H, W) uint8 in the order of `image_format`, and for training "instances" with
            `gt_boxes` (pixels of that image) and `gt_classes` in place of "annotations".
        Raises:
            OSError: the file cannot be read as an image.
            ImageError: it holds numbers that are no colors, or has too many pixels.
            SizeMismatchError: it has not the size that the record says.
        """
        if self.image_format not in ("BGR", "RGB") or "sem_seg_file_name" in dataset_dict:
            return super().__call__(dataset_dict)
        found = {key: copy.deepcopy(value) for key, value in dataset_dict.items() if key != "annotations"}
        picture = _Picture(read_rgb(dataset_dict["file_name"]), self.image_format, self.exact)
        detection_utils.check_image_size(found, picture.size_only())
        transforms = _augment(self.augmentations, picture)
        found["image"] = picture.tensor()
        size = tuple(found["image"].shape[1:])
        if self.proposal_topk is not None:
            detection_utils.transform_proposals(found, size, transforms, proposal_topk=self.proposal_topk)
        if self.is_train and "annotations" in dataset_dict:
            own = type(self)._transform_annotations is FastMapper._transform_annotations
            annotations = dataset_dict["annotations"]
            found["annotations"] = annotations if own else copy.deepcopy(annotations)
            self._transform_annotations(found, transforms, size)
        return found

    def _transform_annotations(
        self, dataset_dict: dict[str, Any], transforms: T.TransformList, image_shape: tuple[int, int]
    ) -> None:
        """Replace "annotations" by "instances"; the annotations themselves stay as they are."""
        items = [item for item in dataset_dict.pop("annotations") if item.get("iscrowd", 0) == 0]
        if self.use_instance_mask or self.use_keypoint or not items or not _plain(items):
            dataset_dict["annotations"] = copy.deepcopy(items)
            transform_annotations(self, dataset_dict, transforms, image_shape)
            return
        boxes = torch.tensor([item["bbox"] for item in items], dtype=torch.float32)
        boxes[:, 2:] += boxes[:, :2]  # in float32, as `BoxMode.convert` does
        height, width = image_shape
        corners = transforms.apply_box(boxes.double().numpy()).clip(min=0)
        corners = np.minimum(corners, [width, height, width, height])
        instances = Instances(image_shape)
        instances.gt_boxes = Boxes(torch.as_tensor(corners, dtype=torch.float32))
        instances.gt_classes = torch.tensor([int(item["category_id"]) for item in items], dtype=torch.int64)
        dataset_dict["instances"] = detection_utils.filter_empty_instances(instances)


class CloseMapper(FastMapper):
    """The faster mapper whose pixels differ by at most `PIXEL_TOLERANCE` from those of Detectron2's mapper."""

    exact = False


def _plain(items: list[dict[str, Any]]) -> bool:
    """Whether all boxes are COCO's lists of numbers, not all of them whole (those Detectron2 keeps as integers)."""
    return all(
        item["bbox_mode"] == BoxMode.XYWH_ABS
        and type(item["bbox"]) is list
        and len(item["bbox"]) == 4
        and {float} <= set(map(type, item["bbox"])) <= {float, int}
        for item in items
    )


def read_rgb(path: str) -> Image.Image:
    """An image in Pillow's mode "RGB", see `images.rgb`: what `detection_utils.read_image` does, 16 bits made 8."""
    with named(f"The image {path}", ImageError), PathManager.open(path, "rb") as file:
        return rgb(open_image(file))


def _augment(augmentations: T.AugmentationList, picture: _Picture) -> T.TransformList:
    """Apply augmentations in turn; the random numbers are drawn by Detectron2's own code."""
    if type(augmentations) is not T.AugmentationList:
        return augmentations(picture)
    transforms = []
    for augmentation in augmentations.augs:
        if type(augmentation) in _BY_SIZE:
            transforms.append(augmentation.get_transform(picture.size_only()))
            picture.transform(transforms[-1])
        else:
            transforms.append(augmentation(picture))
    return T.TransformList(transforms)


class _Picture(T.AugInput):
    """What augmentations work on. It becomes an array when one of them asks for `image`, and stays one."""

    def __init__(self, pillow: Image.Image, order: str, exact: bool) -> None:
        self._order, self._exact = order, exact  # of the channels in the results; whether resizing is Pillow's
        self._held: Image.Image | Tensor | np.ndarray = pillow  # a tensor is (3, H, W), an array (H, W, 3)
        self._flips = (False, False)  # still to be done: left-right, top-bottom
        self.boxes = self.sem_seg = None

    @property
    def image(self) -> np.ndarray:
        """(H, W, 3) uint8, or what an augmentation has made of it."""
        if not isinstance(self._held, np.ndarray):
            self._held = self.tensor().permute(1, 2, 0).contiguous().numpy()
        return self._held

    @image.setter
    def image(self, value: np.ndarray) -> None:
        self._held = value

    def size_only(self) -> np.ndarray:
        """An array of the image's shape that holds no pixels."""
        held = self._held
        return held if isinstance(held, np.ndarray) else np.broadcast_to(np.uint8(0), (*self._size(), 3))

    def _size(self) -> tuple[int, ...]:
        """Height and width, unless it is an array."""
        held = self._held
        return (held.height, held.width) if isinstance(held, Image.Image) else tuple(held.shape[1:])

    def transform(self, tfm: Transform) -> None:
        """Apply a transform, without making an array where it is a known one."""
        kind, held = type(tfm), self._held
        array = isinstance(held, np.ndarray)
        resizes = not array and kind is T.ResizeTransform and (tfm.h, tfm.w) == self._size()
        if kind in (HFlipTransform, VFlipTransform) and not array:
            across, down = self._flips
            self._flips = across ^ (kind is HFlipTransform), down ^ (kind is VFlipTransform)
        elif resizes and self._exact and isinstance(held, Image.Image):
            if self._flips in _FLIPS:  # now: resizing a flipped image is not exactly flipping a resized one
                held = held.transpose(_FLIPS[self._flips])
            self._held, self._flips = held.resize((tfm.new_w, tfm.new_h), tfm.interp), (False, False)
        elif resizes and not self._exact and tfm.interp == Image.Resampling.BILINEAR:
            planes, size = self.tensor().unsqueeze(0), (int(tfm.new_h), int(tfm.new_w))
            self._held = torch.nn.functional.interpolate(planes, size, mode="bilinear", antialias=True).squeeze(0)
        elif array or kind is not NoOpTransform:
            self.image = tfm.apply_image(self.image)

    def tensor(self) -> Tensor:
        """(3, H, W) uint8 of its own memory, all flips done."""
        if isinstance(self._held, np.ndarray):
            return torch.as_tensor(np.ascontiguousarray(self._held.transpose(2, 0, 1)))
        planes = _planes(self._held, self._order) if isinstance(self._held, Image.Image) else self._held
        if any(self._flips):
            planes = planes.flip([axis for axis, wanted in zip((2, 1), self._flips) if wanted])
        self._held, self._flips = planes, (False, False)
        return planes


def _planes(image: Image.Image, order: str) -> Tensor:
    """(3, H, W) uint8, channels in the given order; Pillow packs one at a time, at twice the speed of `cv2.split`."""
    planes = torch.empty((3, image.height, image.width), dtype=torch.uint8)
    for plane, channel in zip(planes.numpy(), order):
        plane.reshape(-1)[:] = np.frombuffer(image.tobytes("raw", channel), np.uint8)
    return planes
