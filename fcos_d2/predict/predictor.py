"""Detects objects in images: a variant, a config or a checkpoint is all it needs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode, instantiate
from detectron2.data import MetadataCatalog
from detectron2.modeling import ProposalNetwork
from detectron2.structures import Instances
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..config.edits import class_node
from ..config.load import CHECKPOINTS, is_code, is_data, load_config
from ..config.plugins import load_plugins
from ..config.stored import build, limited_memory
from ..config.tta import tta_from, tta_of
from ..data.images import ImageLike, to_array
from ..devices import find_device
from ..errors import FcosError
from ..hub import located
from ..paths import is_exported
from ..runtime import described
from ..visualize import draw_boxes
from ..weights.families.torchvision import COCO_IDS, TORCHVISION, coco_names
from ..weights.fetch import fetch, is_backbone_only
from ..weights.fit import Policy, fit
from ..weights.published import num_classes_of
from ..weights.read import Reading, Weights
from ..weights.thresholds import Thresholds, stored_thresholds
from ..zoo.tta import TTA
from .arrays import as_arrays
from .batches import batches
from .keep import Keep, ScoreThreshold, require_scores
from .tta import DetectorWithTTA
from .views import ORIGINAL

__all__ = ["Predictor"]

_ENGINES: list[Any] = []
_LARGEST_VARIANT = 2**27  # numbers that one of the zoo may have, whatever its weights are


class Predictor:
    """What Detectron2's `DefaultPredictor` is to its YAML configs, for all kinds of configs and images.

        predictor = Predictor("output/model_best.pth")
        instances = predictor("street.jpg")["instances"]
        print(predictor.describe(instances))

    A checkpoint or a YAML file may come from a stranger: nothing in it runs, and of its config only the model and the
    resizing of test images are built. A .py config is code and runs.

    Args:
        source: the name of a variant, a LazyConfig (.py), a YAML file, a checkpoint that holds its config, or a
            detector in the layout of the Hugging Face Hub: its folder, or hf://owner/name.
        weights: a checkpoint, or the name of a variant, whose published weights are fetched; by default those of the
            source; "random" for none. A config takes its number of classes from them.
        device: by default "cuda" where there is one, else "cpu".
        overrides: of the config, `key=value` each.
        score_threshold: keep what has a higher score; by class name for some ({"cat": 0.3}, `None` for all others). By
            default what the weights hold for each class, see docs/thresholds.md, else as the config says; an override
            of the config's score_threshold counts as told, too.
        optimize: run a faster copy of the model (`FCOS.optimize`): `True` or "fp32" with the same detections, "bf16" or
            {"backbone": "bf16"} with nearly the same, in less time.
        allow_py: whether the source may be a .py file.
        plugins: modules of other projects whose classes a checkpoint or a YAML file may name.
        force_recipe: use weights that were trained for another recipe than the source describes.
        max_pixels: width times height up to which a file is read, see `images.open_image`.
        otherwise: `score_threshold` where neither the caller nor the weights say one.
        calibrate: report scores whose logits are divided by the temperature that the weights hold, so that they tell
            how often a detection is right; their order, and so AP, is as before. A given `score_threshold` is of
            these scores.
        engine: what runs the model: "torch", "onnx" (onnxruntime), "openvino", or "auto" for the fastest of these on
            this machine, on the CPU. The model is then exported in memory. Of a file of `fcos export`, which `source`
            may be, too, by default "onnx" for .onnx and "openvino" for .xml.

    Attributes:
        model, cfg, device: as built.
        tta: `zoo.tta.TTA`, or `None` for no test-time augmentation; may be set.
        thresholds: least score of each class, before calibration; `None` where only the config's threshold counts.
        temperature: that the weights hold, whether scores are calibrated or not; `None` where they hold none.
        class_names: of the checkpoint, else of the config's data set, else "class 0", "class 1", ...

    Raises:
        FcosError: the config or the weights do not exist or do not fit; one sentence.
    """

    def __init__(
        self, source: str | Path, weights: str | Path | None = None, device: str | None = None,
        overrides: Sequence[str] = (), score_threshold: ScoreThreshold = None,
        optimize: bool | str | Mapping[str, str] = False, *, allow_py: bool = True, plugins: Sequence[str] = (),
        force_recipe: bool = False, max_pixels: int | None = None, otherwise: float | None = None,
        calibrate: bool = False, tta: TTA | Mapping[str, Any] | str | bool | None = None, engine: str | None = None,
    ) -> None:  # fmt: skip
        require_scores(score_threshold)
        wanted = tta_from(tta)
        if is_exported(source):
            others = dict(weights=weights, overrides=overrides, optimize=optimize, tta=tta)
            require_none(others, f"{source} is an exported file")
            self._take(source, engine, score_threshold, max_pixels, calibrate)
            return
        load_plugins(plugins)
        self.max_pixels = max_pixels
        source, weights = located(str(source)), None if weights is None else located(str(weights))
        on = "cpu" if device is None and engine not in (None, "torch") else device
        self.device: torch.device = find_device(on, "device")
        reading = Reading()  # a checkpoint has config and weights
        self.cfg = load_config(source, overrides, allow_py=allow_py, text_of=reading.config_text)
        path = _weights_path(source, self.cfg, weights)
        weights_read = reading.weights(fetch(path)) if path else None
        if weights_read and not any("num_classes" in override.lower() for override in overrides):
            _set_classes(self.cfg, weights_read)
        most = 2 * _numbers_in(weights_read.tensors.values()) + 2**24 if weights_read else 2**31
        model, resizes, self._input_format, data_sets = _parts(self.cfg, source, self.device, most)
        if isinstance(model, ProposalNetwork):
            raise FcosError(f"{source} only proposes regions, and detects nothing: `fcos eval` tells their recall.")
        self.model = model.to(self.device)
        self._resize = T.AugmentationList(resizes)
        if weights_read is not None:
            fit(self.model, weights_read, Policy(other_recipe="warn" if force_recipe else "refuse"))
        self.class_names = _names_of(weights_read, data_sets, self.cfg, self.model)
        self.model.eval()
        told = any(re.search(r"score_threshold|inference_th", text.lower()) for text in overrides)
        asks = calibrate or not (told or isinstance(score_threshold, (int, float)))
        stored = _stored(weights_read, asks) if weights_read else None
        temperature = _temperature(stored) if calibrate else None
        self.temperature = None if stored is None else stored.temperature
        own, otherwise = (None, None) if told else (stored, otherwise)
        self._keep = Keep.of(score_threshold, own, self.class_names, otherwise, temperature)
        self.thresholds = self._keep.by_class(self.class_names)
        self._voters: Any = None
        if (dense := getattr(self.model, "dense", None)) is not None:
            self._voters = self._keep.voters(dense.selector)
            dense.selector = self._keep.selector(dense.selector)  # other models are filtered
        if optimize:
            self.model = _optimized(self.model, "fp32" if optimize is True else optimize)
        self.tta = tta_of(self.cfg) if tta is None else wanted
        if engine not in (None, "torch"):
            name = f"The model runs in engine={engine!r}"
            require_none({"optimize": optimize, "tta": self.tta, "device": self.device.type == "cuda"}, name)
            self.model = _ENGINES[0].engine_for(self, engine, str(source), None if weights is None else str(weights))

    def _take(
        self, path: str | Path, engine: str | None, threshold: ScoreThreshold, max_pixels: int | None, calibrate: bool
    ) -> None:
        """Be the detector that an exported file holds."""
        model, resizes = _ENGINES[0].opened(path, engine, threshold, calibrate=calibrate)
        said = model.detector.metadata
        self.model = model
        self.cfg, self.tta, self.device, self.max_pixels = None, None, torch.device("cpu"), max_pixels
        self._resize, self._input_format = T.AugmentationList(resizes), said["channel_order"]
        self.class_names = model.detector.class_names
        self.temperature = said.get("temperature")
        self._keep = Keep(tuple(map(float, said["thresholds"])), temperature=self.temperature if calibrate else None)
        self._voters = None
        self.thresholds = self._keep.by_class(self.class_names)

    def __repr__(self) -> str:
        count = len(self.class_names)
        shown = ", ".join(self.class_names[:5]) + (", ..." if count > 5 else "")
        return f"Predictor({type(self.model).__name__} on {self.device}, {count} classes: {shown})"

    @property
    def least(self) -> tuple[float, ...]:
        """(K,) score of each class, before calibration, that detections must exceed; 0 where only the config counts."""
        return self._keep.values(len(self.class_names))

    @property
    def resizing(self) -> list[Any]:
        """Detectron2's augmentations that bring an image to the size in which the network sees it."""
        return list(self._resize.augs)

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
        self, images: Iterable[ImageLike], batch_size: int = 1, image_format: str = "BGR", resize: bool = True
    ) -> list[dict[str, Any]]:
        """Detect objects in several images.

        Args:
            images: see `images.to_array`.
            batch_size: images that go through the network together. Of as many as four batches hold those are taken
                together whose network inputs have one size, so that none is padded, which would change what is found.
            image_format: as in `__call__`.
            resize: give the images to the network in the size that the config says, not in their own.
        Returns:
            For each image what `__call__` returns.
        Raises:
            FcosError: an image cannot be used; or `resize` is off, and `tta` on.
        """
        if self.tta is not None and not resize:
            raise FcosError("Test-time augmentation resizes images, so resize=False does not go with it: tta=False.")
        model = self.model
        if self.tta is not None:
            voters = None if self.tta.merge == "nms" else self._voters
            model = DetectorWithTTA(self.model, self.tta, self._input_format, selector=voters)
        results: list[dict[str, Any]] = []
        size = max(batch_size, 1)
        inputs = (self._input(image, image_format, resize) for image in images)
        while waiting := list(islice(inputs, size if size == 1 else 4 * size)):
            found: dict[int, dict[str, Any]] = {}
            for rows in batches([tuple(x["image"].shape) for x in waiting], size):
                found.update(zip(rows, model([waiting[row] for row in rows])))
            results += [found[row] for row in range(len(waiting))]
        return [self._above_threshold(result) for result in results]

    @torch.inference_mode()
    def predict_inputs(self, inputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """What `predict` returns, for one batch of network inputs.

        Args:
            inputs: what Detectron2's models take: "image" (3, H, W) float32 in 0..255, in the order of the model's
                channels; "height", "width" of the original.
        """
        return [self._above_threshold(result) for result in self.model(list(inputs))]

    def input_size(self, image: ImageLike, image_format: str = "BGR") -> tuple[int, int]:
        """(height, width) in which the network sees an image, pixels before padding."""
        height, width = self._input(image, image_format)["image"].shape[1:]
        return height, width

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
        picture = to_array(image, image_format, self.max_pixels)
        if picture.dtype != np.uint8:
            picture = picture.clip(0, 255).round().astype(np.uint8)
        return draw_boxes(
            picture, found.pred_boxes.tensor, found.pred_classes, found.scores, self.class_names, **options
        )

    def describe(self, instances: Instances) -> list[dict[str, Any]]:
        """Detections as plain data, best first.

        Args:
            instances: what `__call__` gave.
        Returns:
            For each "class" (its name), "score" (0..1) and "box" [left, top, right, bottom] in pixels of the image;
            where the instances have `track_ids`, "track" (None for one that belongs to none yet).
        """
        return described(as_arrays(instances), self.class_names)

    def _input(self, image: ImageLike, image_format: str, resize: bool = True) -> dict[str, Any]:
        """What Detectron2's models take: the image (C, H, W) float32 as the network sees it, the original's size."""
        picture = to_array(image, image_format, self.max_pixels)
        height, width = picture.shape[:2]
        if self._input_format == "BGR":
            picture = np.ascontiguousarray(picture[:, :, ::-1])
        resized = T.AugInput(picture)
        try:
            if resize:
                self._resize(resized)
            if 0 in resized.image.shape:
                raise ValueError("nothing would be left of it")
        except (ValueError, ZeroDivisionError) as error:
            name = f"The image {image}" if isinstance(image, (str, Path)) else "An image"
            raise FcosError(f"{name} of {width}x{height} pixels cannot be resized for the model: {error}.") from error
        tensor = torch.from_numpy(np.ascontiguousarray(resized.image.transpose(2, 0, 1)).astype(np.float32))
        found = {"image": tensor, "height": height, "width": width}
        return found if self.tta is None else {**found, ORIGINAL: picture}

    def _above_threshold(self, result: dict[str, Any]) -> dict[str, Any]:
        return {**result, "instances": self._keep(result["instances"])} if "instances" in result else result


def require_none(options: Mapping[str, Any], why: str) -> None:
    """Raise FcosError for an option that is given although it does not apply."""
    for name, value in options.items():
        if value:
            raise FcosError(f"{why}, with which {name} does not go: leave one of them out.")


def run_with(engines: Any) -> None:
    """Say what runs models in other engines: `fcos_d2.engines.inside`, which is above this room."""
    _ENGINES[:] = [engines]


def _numbers_in(tensors: Iterable[torch.Tensor]) -> int:
    """Numbers that lie in memory for some tensors, each once: a file can give one number any shape, and many names."""
    lengths = {tensor.untyped_storage().data_ptr(): len(tensor.untyped_storage()) for tensor in tensors}
    return sum(lengths.values()) // 4


def _parts(cfg: DictConfig | CfgNode, source: str, device: torch.device, most: int) -> tuple[nn.Module, list, str, Any]:
    """What detecting needs of a config: model, resizing, order of channels, and data sets that may name the classes.

    Args:
        cfg: of either system.
        source: where it is from.
        device: that the model is for.
        most: numbers that a model may have if the config is data.
    """
    if isinstance(cfg, CfgNode):
        cfg.MODEL.DEVICE = str(device)
        resize = T.ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)
        return build(cfg, source, elements=most), [resize], cfg.INPUT.FORMAT, cfg.DATASETS.TEST
    mapper = OmegaConf.select(cfg, "dataloader.test.mapper") or {}
    augmentations = mapper.get("augmentations") or []
    if is_data(source):
        model = build(cfg.model, source, elements=most)
        resizes = build(augmentations, source, kind="transform")
    else:  # a variant, whose classes may be a stranger's
        with nullcontext() if is_code(source) else limited_memory(max(most, _LARGEST_VARIANT), source):
            model, resizes = instantiate(cfg.model), instantiate(augmentations)
    order = cfg.model.get("input_format") or mapper.get("image_format") or "BGR"
    return model, list(resizes), order, OmegaConf.select(cfg, "dataloader.test.dataset.names")


def _weights_path(source: str, cfg: DictConfig | CfgNode, weights: str | None) -> str:
    """File or address of the weights; empty for random ones.

    Raises:
        FcosError: neither the caller nor the config names weights of a detector.
    """
    if weights == "random":
        return ""
    path = weights or (source if Path(source).suffix.lower() in CHECKPOINTS else "")
    if not path and not is_code(source) and not is_data(source):
        return source  # a variant's name
    if not path:
        path = cfg.MODEL.WEIGHTS if isinstance(cfg, CfgNode) else OmegaConf.select(cfg, "train.init_checkpoint") or ""
    if not path or is_backbone_only(path):
        has = f"only a backbone ({path})" if path else "none"
        raise FcosError(
            f"{source} has no weights of a detector, {has}: pass the checkpoint as weights (--weights FILE), or "
            "'random' for an untrained detector."
        )
    return path


def _set_classes(cfg: DictConfig | CfgNode, weights: Weights) -> None:
    """Let a config have the number of classes of its weights, where they say it."""
    count = num_classes_of(weights) or len(weights.class_names or ())
    own = cfg.MODEL.FCOS.NUM_CLASSES if isinstance(cfg, CfgNode) else cfg.model.get("num_classes")
    if weights.kind == TORCHVISION.name and (count, own) == (91, len(COCO_IDS)):
        return  # of its channels `fit` takes those of COCO's classes
    if count and isinstance(cfg, CfgNode):
        cfg.MODEL.FCOS.NUM_CLASSES = count
    elif count and not isinstance(cfg, CfgNode) and (node := class_node(cfg.model)) is not None:
        node.num_classes = count


def _names_of(weights: Weights | None, data_sets: Any, cfg: DictConfig | CfgNode, model: nn.Module) -> list[str]:
    """Class names of the weights, else of the first data set, where they are the model's in number; else numbers."""
    count = getattr(model, "num_classes", 0) or getattr(getattr(model, "roi_heads", None), "num_classes", 0)
    count = count or (cfg.MODEL.ROI_HEADS.NUM_CLASSES if isinstance(cfg, CfgNode) else 0)
    first = data_sets if isinstance(data_sets, str) else next(iter(data_sets or ()), None)
    names = list(MetadataCatalog.get(first).get("thing_classes") or []) if first in MetadataCatalog.list() else []
    known = list(weights.class_names or ()) if weights else []
    if weights and not known and weights.kind == TORCHVISION.name and count == 91:
        known = coco_names(count) or []
    if known and len(known) == (count or len(known)):
        return known
    return names if len(names) == count else [f"class {i}" for i in range(count)]


def _stored(weights: Weights, asks: bool) -> Thresholds | None:
    """The thresholds that weights hold; what is damaged in them does not matter unless somebody asks for it."""
    try:
        return stored_thresholds(weights)
    except FcosError:
        if asks:
            raise
        return None


def _temperature(stored: Thresholds | None) -> float:
    if stored is None or stored.temperature is None:
        raise FcosError(
            "Scores cannot be calibrated, as the weights hold no temperature: `fcos eval --thresholds f1 --save FILE` "
            "writes a checkpoint that does."
        )
    return stored.temperature


def _optimized(model: Any, precision: str | Mapping[str, str]) -> nn.Module:
    if not hasattr(model, "optimize"):
        raise FcosError(f"optimize works for FCOS only, but the model is {type(model).__name__}: leave it out.")
    try:
        return model.optimize(precision)
    except ValueError as error:
        raise FcosError(f"optimize: {error}") from error
