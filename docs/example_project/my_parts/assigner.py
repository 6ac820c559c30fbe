"""An assigner of one's own: what it is called with and returns says `fcos_d2.modeling.PointAssigner.__call__`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fcos_d2.modeling import ASSIGNER_REGISTRY
from fcos_d2.options import option
from fcos_d2.structures import Locations


@ASSIGNER_REGISTRY.register()
@dataclass(frozen=True)
class CentreAssigner:
    """A box takes the locations near its centre, on the level whose stride suits its size; the last box wins.

    Attributes:
        cells: half side, in strides, of the square around the centre; in YAML `MODEL.FCOS.CENTRE_CELLS`.
        size_per_stride: a level answers for boxes whose longer side is about so many strides.
    """

    cells: float = option(1.0, key="CENTRE_CELLS")
    size_per_stride: float = option(8.0, key="SIZE_PER_STRIDE")

    def __call__(self, locations: Locations, boxes: Tensor, image: Tensor, num_images: int) -> Tensor:
        result = image.new_full((num_images, len(locations)), -1)
        strides = locations.stride.unique()
        for row, (box, where) in enumerate(zip(boxes, image)):
            side = (box[2:] - box[:2]).max()
            stride = strides[(strides * self.size_per_stride - side).abs().argmin()]
            offset = (locations.xy - (box[:2] + box[2:]) / 2).abs().amax(1)
            inside = ((locations.xy > box[:2]) & (locations.xy < box[2:])).all(1)
            result[where, inside & (locations.stride == stride) & (offset <= self.cells * stride)] = row
        return result

    def max_positives(self, locations: Locations, num_boxes: int, num_images: int) -> int:
        """A bound on the number of positives."""
        return min(num_boxes * (int(2 * self.cells) + 2) ** 2, num_images * len(locations))
