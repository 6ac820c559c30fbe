"""Records of a data set -> inputs of a model: Detectron2's `DatasetMapper`, faster.

`FastMapper` gives the same pixels, boxes and random numbers as Detectron2's mapper. It leaves out what that mapper
does besides reading and resizing: the image stays Pillow's until it is written once, plane by plane, into the tensor;
polygons are not copied unless masks are asked for; boxes are transformed all at once. Whatever it does not know (other
augmentations, colour formats, masks, keypoints) is handed to Detectron2's code from that point on.

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
from .images import upright

__all__ = ["PIXEL_TOLERANCE", "CloseMapper", "FastMapper"]

# Of 255, between `CloseMapper` and Detectron2's mapper. The two passes of a resize round to whole numbers; a row off by
# one after the first moves the second by at most one, whose own rounding may add one more.
PIXEL_TOLERANCE = 2

# Detectron2's augmentations that ask an image for nothing but its size.
_BY_SIZE = (T.ResizeShortestEdge, T.ResizeScale, T.Resize, T.RandomFlip)


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
            SizeMismatchError: it has not the size that the record says.
        """
        if self.image_format not in ("BGR", "RGB") or "sem_seg_file_name" in dataset_dict:
            return super().__call__(dataset_dict)
        found = {key: copy.deepcopy(value) for key, value in dataset_dict.items() if key != "annotations"}
        picture = _Picture(_read(dataset_dict["file_name"]), self.image_format, self.exact)
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
    for item in items:
        box = item["bbox"]
        if item["bbox_mode"] != BoxMode.XYWH_ABS or type(box) is not list or len(box) != 4:
            return False
        kinds = {type(value) for value in box}
        if not {float} <= kinds <= {float, int}:
            return False
    return True


def _read(path: str) -> Image.Image:
    """An image in Pillow's mode "RGB", turned as its EXIF data says; what `detection_utils.read_image` does."""
    with PathManager.open(path, "rb") as file:
        image = upright(Image.open(file))
        if image.mode != "RGB":
            return image.convert("RGB")
        image.load()
    return image


def _augment(augmentations: T.AugmentationList, picture: _Picture) -> T.TransformList:
    """Apply augmentations in turn; the random numbers are drawn by Detectron2's own code."""
    if type(augmentations) is not T.AugmentationList:
        return augmentations(picture)
    transforms = []
    for augmentation in augmentations.augs:
        if type(augmentation) in _BY_SIZE:
            transform = augmentation.get_transform(picture.size_only())
            picture.transform(transform)
        else:
            transform = augmentation(picture)
        transforms.append(transform)
    return T.TransformList(transforms)


class _Picture(T.AugInput):
    """What augmentations work on. It becomes an array when one of them asks for `image`, and stays one.

    Args:
        pillow: mode "RGB".
        order: of the channels in the results, "BGR" or "RGB".
        exact: whether resizing is Pillow's.
    """

    def __init__(self, pillow: Image.Image, order: str, exact: bool) -> None:
        self._order = order
        self._exact = exact
        self._pillow: Image.Image | None = pillow
        self._planes: Tensor | None = None  # (3, H, W); at most one of the three is the image
        self._array: np.ndarray | None = None  # (H, W, 3)
        self._flips: tuple[bool, bool] = (False, False)  # still to be done: left-right, top-bottom
        self.boxes = self.sem_seg = None

    @property
    def image(self) -> np.ndarray:
        """(H, W, 3) uint8, or what an augmentation has made of it."""
        if self._array is None:
            self._array = self.tensor().permute(1, 2, 0).contiguous().numpy()
            self._pillow = self._planes = None
        return self._array

    @image.setter
    def image(self, value: np.ndarray) -> None:
        self._array, self._pillow, self._planes = value, None, None

    def size_only(self) -> np.ndarray:
        """An array of the image's shape that holds no pixels."""
        if self._array is not None:
            return self._array
        return np.broadcast_to(np.uint8(0), (*self._size(), 3))

    def _size(self) -> tuple[int, int]:
        """Height and width."""
        if self._planes is not None:
            return self._planes.shape[1], self._planes.shape[2]
        assert self._pillow is not None, "one of the three is the image"
        return self._pillow.height, self._pillow.width

    def transform(self, tfm: Transform) -> None:
        """Apply a transform, without making an array where it is a known one."""
        if self._array is None:
            if type(tfm) is NoOpTransform:
                return
            if type(tfm) in (HFlipTransform, VFlipTransform):
                across, down = self._flips
                horizontal = type(tfm) is HFlipTransform
                self._flips = across ^ horizontal, down ^ (not horizontal)
                return
            if type(tfm) is T.ResizeTransform and (tfm.h, tfm.w) == self._size():
                if self._exact and self._pillow is not None:
                    self._flip_pillow()
                    self._pillow = self._pillow.resize((tfm.new_w, tfm.new_h), tfm.interp)
                    return
                if not self._exact and tfm.interp == Image.Resampling.BILINEAR:
                    planes = self.tensor().unsqueeze(0)
                    size = (int(tfm.new_h), int(tfm.new_w))
                    resized = torch.nn.functional.interpolate(planes, size, mode="bilinear", antialias=True)
                    self._planes, self._pillow = resized.squeeze(0), None
                    return
        self.image = tfm.apply_image(self.image)

    def _flip_pillow(self) -> None:
        """Do the flips now: resizing a flipped image is not exactly flipping a resized one."""
        for wanted, method in zip(self._flips, (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM)):
            if wanted and self._pillow is not None:
                self._pillow = self._pillow.transpose(method)
        self._flips = (False, False)

    def tensor(self) -> Tensor:
        """(3, H, W) uint8 of its own memory, all flips done."""
        if self._array is not None:
            return torch.as_tensor(np.ascontiguousarray(self._array.transpose(2, 0, 1)))
        across, down = self._flips
        if self._planes is None:
            assert self._pillow is not None, "one of the three is the image"
            self._planes = _planes(self._pillow, self._order)
        if down:
            self._planes = self._planes.flip(1)
        if across:
            self._planes = self._planes.flip(2)
        self._pillow, self._flips = None, (False, False)
        return self._planes


def _planes(image: Image.Image, order: str) -> Tensor:
    """(3, H, W) uint8, channels in the given order; Pillow packs one at a time, at twice the speed of `cv2.split`."""
    planes = torch.empty((3, image.height, image.width), dtype=torch.uint8)
    for plane, channel in zip(planes.numpy(), order):
        plane.reshape(-1)[:] = np.frombuffer(image.tobytes("raw", channel), np.uint8)
    return planes
