"""Detects objects in images: a variant, a config or a checkpoint is all it needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode, instantiate
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from detectron2.structures import Instances
from omegaconf import DictConfig, OmegaConf

from ..config.load import CHECKPOINTS, load_config
from ..data.images import ImageLike, to_array
from ..errors import FcosError
from ..modeling import Selector
from ..visualize import draw_boxes
from ..weights.fetch import is_backbone_only
from ..weights.fit import load_model

__all__ = ["Predictor"]


class Predictor:
    """What Detectron2's `DefaultPredictor` is to its YAML configs, for all kinds of configs and images.

        predictor = Predictor("output/model_best.pth")
        instances = predictor("street.jpg")["instances"]

    Args:
        source: the name of a variant, a LazyConfig (.py), a YAML file, or a checkpoint that holds its config.
        weights: a checkpoint; by default the source itself, or what its config starts from; "random" for none.
        device: by default "cuda" where there is one, else "cpu".
        overrides: of the config, `key=value` each.
        score_threshold: keep what has a higher score; by default as the config says.
        optimize: run a faster copy of the model (`FCOS.optimize`): `True` or "fp32" with the same detections, "bf16" or
            {"backbone": "bf16"} with nearly the same, in less time.

    Attributes:
        model, cfg, device: as built.
        class_names: of the checkpoint, else of the config's data set, else "class 0", "class 1", ...

    Raises:
        FcosError: the config or the weights do not exist or do not fit; one sentence.
    """

    def __init__(
        self,
        source: str | Path,
        weights: str | Path | None = None,
        device: str | None = None,
        overrides: Sequence[str] = (),
        score_threshold: float | None = None,
        optimize: bool | str | Mapping[str, str] = False,
    ) -> None:
        self.cfg = load_config(source, overrides)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        lazy = isinstance(self.cfg, DictConfig)
        self._resize, self._input_format, data_set = (_lazy_input if lazy else _yacs_input)(self.cfg)
        self.model = (instantiate(self.cfg.model) if lazy else _yacs_model(self.cfg, self.device)).to(self.device)
        names = self._load_weights(str(source), None if weights is None else str(weights))
        numbered = self._numbered()
        named = names or _data_names(data_set) or []
        self.class_names: list[str] = named if len(named) == len(numbered) or not numbered else numbered
        self.model.eval()
        self.score_threshold = score_threshold
        if score_threshold is not None:
            self._set_threshold(score_threshold)
        if optimize:
            self.model = self._optimized("fp32" if optimize is True else optimize)

    def __call__(self, image: ImageLike, image_format: str = "BGR") -> dict[str, Any]:
        """Detect objects in one image.

        Args:
            image: see `images.to_array`.
            image_format: "BGR" or "RGB": order of the channels of arrays and tensors.
        Returns:
            {"instances": `Instances` with pred_boxes (xyxy, pixels of the image), scores, pred_classes}.
        """
        return self.predict([image], image_format=image_format)[0]

    @torch.inference_mode()
    def predict(
        self, images: Iterable[ImageLike], batch_size: int = 1, image_format: str = "BGR"
    ) -> list[dict[str, Any]]:
        """Detect objects in several images.

        Args:
            images: see `images.to_array`.
            batch_size: images that go through the network together.
            image_format: as in `__call__`.
        Returns:
            For each image what `__call__` returns.
        """
        results: list[dict[str, Any]] = []
        batch: list[dict[str, Any]] = []
        for image in images:
            batch.append(self._input(image, image_format))
            if len(batch) == batch_size:
                results += self.model(batch)
                batch = []
        results += self.model(batch) if batch else []
        return [self._above_threshold(result) for result in results]

    def draw(self, image: ImageLike, instances: Instances, image_format: str = "BGR", **options: Any) -> np.ndarray:
        """Draw detections on a copy of an image.

        Args:
            image: see `images.to_array`.
            instances: of that image.
            image_format: as in `__call__`.
            options: of `visualize.draw_boxes`.
        Returns:
            (H, W, 3) uint8 RGB.
        """
        found = instances.to("cpu")
        picture = to_array(image, image_format)
        if picture.dtype != np.uint8:
            picture = picture.clip(0, 255).round().astype(np.uint8)
        return draw_boxes(
            picture, found.pred_boxes.tensor, found.pred_classes, found.scores, self.class_names, **options
        )

    def _optimized(self, precision: str | Mapping[str, str]) -> torch.nn.Module:
        if not hasattr(self.model, "optimize"):
            raise FcosError(
                f"optimize works for FCOS only, but the model is {type(self.model).__name__}: leave it out."
            )
        try:
            return self.model.optimize(precision)
        except ValueError as error:
            raise FcosError(f"optimize: {error}") from error

    # Weights

    def _load_weights(self, source: str, weights: str | None) -> list[str] | None:
        """Load the weights and return the class names that came with them."""
        if weights == "random":
            return None
        path = weights or self._default_weights(source)
        if not path or is_backbone_only(path):
            has = f"only a backbone ({path})" if path else "none"
            raise FcosError(
                f"{source} has no weights of a detector, {has}: pass the checkpoint as weights (--weights FILE), or "
                "'random' for an untrained detector."
            )
        names = load_model(self.model, path).class_names
        return list(names) if names else None

    def _default_weights(self, source: str) -> str:
        if Path(source).suffix.lower() in CHECKPOINTS:
            return source
        if isinstance(self.cfg, CfgNode):
            return self.cfg.MODEL.WEIGHTS
        return OmegaConf.select(self.cfg, "train.init_checkpoint") or ""

    def _numbered(self) -> list[str]:
        count = getattr(self.model, "num_classes", 0)
        if not count and isinstance(self.cfg, CfgNode):
            count = self.cfg.MODEL.ROI_HEADS.NUM_CLASSES
        return [f"class {i}" for i in range(count)]

    # Images

    def _input(self, image: ImageLike, image_format: str) -> dict[str, Any]:
        """What Detectron2's models take: the resized image (C, H, W) float32, and the size of the original."""
        picture = to_array(image, image_format)
        height, width = picture.shape[:2]
        if self._input_format == "BGR":
            picture = np.ascontiguousarray(picture[:, :, ::-1])
        resized = T.AugInput(picture)
        try:
            self._resize(resized)
            if 0 in resized.image.shape:
                raise ValueError("nothing would be left of it")
        except (ValueError, ZeroDivisionError) as error:
            name = f"The image {image}" if isinstance(image, (str, Path)) else "An image"
            raise FcosError(f"{name} of {width}x{height} pixels cannot be resized for the model: {error}.") from error
        tensor = torch.from_numpy(np.ascontiguousarray(resized.image.transpose(2, 0, 1)).astype(np.float32))
        return {"image": tensor, "height": height, "width": width}

    # Scores

    def _above_threshold(self, result: dict[str, Any]) -> dict[str, Any]:
        if self.score_threshold is None or "instances" not in result:
            return result
        found = result["instances"]
        return {**result, "instances": found[found.scores > self.score_threshold]}

    def _set_threshold(self, threshold: float) -> None:
        """Let the selector compare final scores, whatever its own threshold was on; other models are filtered."""
        if not 0 <= threshold < 1:
            raise FcosError(f"score_threshold is {threshold}; it must be in 0..1, 1 excluded, for example 0.3.")
        dense = getattr(self.model, "dense", None)
        if dense is not None and isinstance(dense.selector, Selector):
            dense.selector = replace(dense.selector, threshold_on="score", score_threshold=threshold)


def _lazy_input(cfg: DictConfig) -> tuple[T.AugmentationList, str, str | None]:
    """Resizing, channel order, and data set of a LazyConfig."""
    mapper = OmegaConf.select(cfg, "dataloader.test.mapper")
    augmentations = instantiate(mapper.augmentations) if mapper is not None and "augmentations" in mapper else []
    order = cfg.model.get("input_format") or (mapper.get("image_format") if mapper is not None else None) or "BGR"
    return (
        T.AugmentationList(list(augmentations)),
        order,
        _first(OmegaConf.select(cfg, "dataloader.test.dataset.names")),
    )


def _yacs_input(cfg: CfgNode) -> tuple[T.AugmentationList, str, str | None]:
    """The same of Detectron2's YAML keys."""
    resize = T.ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)
    return T.AugmentationList([resize]), cfg.INPUT.FORMAT, _first(cfg.DATASETS.TEST)


def _yacs_model(cfg: CfgNode, device: torch.device) -> torch.nn.Module:
    cfg.MODEL.DEVICE = str(device)
    return build_model(cfg)


def _first(names: Any) -> str | None:
    if isinstance(names, str):
        return names
    return names[0] if names else None


def _data_names(name: str | None) -> list[str] | None:
    known = MetadataCatalog.get(name).get("thing_classes") if name and name in MetadataCatalog.list() else None
    return list(known) if known else None
