"""Who is compared: this package and other FCOS implementations, each doing the same work on the same inputs.

A peer is an object with a `name`, the `recipe` of this package that has its choices, and a method for each suite it
takes part in, called with a `Setting`: it prepares the work and returns a `Job`. What a job returns is turned into a
common form outside the measured time. Another project joins with `--peer NAME=module:Class`; the class is called
without arguments and has those of these methods that it wants to be measured in.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from fcos_d2.config.compose import compose
from fcos_d2.errors import FcosError
from fcos_d2.modeling.meta_arch import FCOS, as_instances
from fcos_d2.structures import GroundTruth, Predictions
from fcos_d2.zoo.recipes import RECIPES
from projects_tools.bench import workload
from projects_tools.bench.workload import NUM_CLASSES, SCORE_THRESHOLD, STRIDES, Maps, Setting, Truth

FEATURES = ("p3", "p4", "p5", "p6", "p7")
# How a model may run, words that may stand together: maps laid as channels_last, convolutions in bfloat16 (autocast),
# backbone and head through torch.compile; or "optimized", what `FCOS.optimize` makes: in float32, with "bf16" all of it
# in bfloat16, with "bf16 backbone" only that. The suite "data" has a mode of its own, "close": `fcos_d2.data.mapper`.
MODES = ("eager", "channels_last", "bf16", "compiled", "optimized", "backbone")
SUITES = ("assign", "loss", "decode", "forward", "train", "data")


@dataclass
class Job:
    """Work to measure.

    Attributes:
        run: does it once, again and again with the same result.
        answer: what `run` returned -> the common form of the suite: for "assign" (N, R) int64 row of the boxes of the
            batch or -1; for "loss" and "train" {"class", "box", "quality": float} and a list of gradients; for
            "decode" and "forward" one (boxes, scores, classes) for each image; for "data" a list of image tensors.
        before: what has to be done before each run and is not part of the work.
    """

    run: Callable[[], Any]
    answer: Callable[[Any], Any]
    before: Callable[[], None] = lambda: None


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    model.eval()
    with torch.inference_mode():
        yield


class Ours:
    """This package, with the choices of a recipe."""

    def __init__(self, recipe: str = "detectron2") -> None:
        self.name, self.recipe = "fcos_d2", recipe

    def _dense(self) -> nn.Module:
        """`DenseFCOS` with the recipe's parts, its head left out."""
        from fcos_d2.modeling import DenseFCOS, FCOSLoss, LocationGrid, LTRBCoder, PointAssigner, Selector

        recipe = RECIPES[self.recipe]
        selector = {**recipe.selector, "score_threshold": SCORE_THRESHOLD}
        return DenseFCOS(
            head=nn.Identity(),
            loss=FCOSLoss(**recipe.loss),
            assigner=PointAssigner(**recipe.assigner),
            coder=LTRBCoder(**recipe.coder),
            selector=Selector(**selector),
            grid=LocationGrid(**recipe.grid),
        )

    def _predictions(self, dense: nn.Module, maps: Maps, setting: Setting) -> Predictions:
        sizes = [tuple(x.shape[2:]) for x in maps.logits]
        locations = dense.grid(sizes, STRIDES, (setting.height, setting.width), maps.logits[0].device)
        return Predictions(maps.logits, maps.raw_ltrb, maps.quality, locations)

    def assign(self, setting: Setting) -> Job:
        dense, instances = (
            self._dense().to(setting.device),
            as_gt_instances(workload.truths(setting), setting, setting.device),
        )
        sizes = workload.feature_sizes(setting.height, setting.width)
        device = torch.device(setting.device)

        @torch.no_grad()
        def run() -> Tensor:
            truth = GroundTruth.from_instances(instances, device)
            locations = dense.grid(sizes, STRIDES, (setting.height, setting.width), device)
            return dense.assigner(locations, truth.boxes, truth.image, truth.num_images)

        return Job(run, lambda index: index.cpu())

    def loss(self, setting: Setting) -> Job:
        dense, maps = self._dense().to(setting.device), workload.training_maps(setting)
        instances = as_gt_instances(workload.truths(setting), setting, setting.device)
        leaves = maps.leaves()

        def run() -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
            if dense.loss.average is not None:
                dense.loss.average.fill_(dense.loss.moving_start)
            truth = GroundTruth.from_instances(instances, leaves[0].device)
            losses = dense.losses(self._predictions(dense, maps, setting), truth)
            return losses, torch.autograd.grad(sum(losses.values()), leaves)

        return Job(run, as_losses)

    def decode(self, setting: Setting) -> Job:
        dense, (maps, restore) = self._dense().to(setting.device), fresh(workload.detection_maps(setting))
        sizes = [(setting.height, setting.width)] * setting.batch

        @torch.inference_mode()
        def run() -> list[Instances]:
            predictions = self._predictions(dense, maps, setting)
            found = dense.detect(predictions, sizes)
            return as_instances(found, predictions.locations.xy[found.location], sizes)

        return Job(run, as_detections, restore)

    def forward(self, setting: Setting) -> Job:
        model = calibrated(self.recipe, setting).to(setting.device)
        if "optimized" in setting.mode:
            wanted = "bf16" if "bf16" in setting.mode else "fp32"
            model = model.optimize({"backbone": wanted} if "backbone" in setting.mode else wanted)
        else:
            model = in_mode(model, setting.mode)
        return _detection(model, setting)

    def train(self, setting: Setting) -> Job:
        model = in_mode(build_model(self.recipe).to(setting.device).train(), setting.mode)
        if setting.device == "cpu":  # as `LazyTrainer` does
            model.to(memory_format=torch.channels_last)
        instances = as_gt_instances(workload.truths(setting), setting)
        inputs = [{"image": workload.image(setting, i), "instances": x} for i, x in enumerate(instances)]
        return training_job(model, lambda: model(inputs), setting, average=model.dense.loss)

    def data(self, setting: Setting) -> Job:
        from detectron2.data import transforms as T

        from fcos_d2.data.mapper import CloseMapper

        mapper = compose(self.recipe, "R_50_FPN", "1x").dataloader.train.mapper
        mapper.augmentations = [L(T.ResizeShortestEdge)(short_edge_length=800, max_size=1333)]
        if setting.mode == "close":
            mapper._target_ = CloseMapper
        return mapping_job(instantiate(mapper), setting)


def _rows_of(labels: list[Tensor], boxes: list[Tensor], instances: list[Instances]) -> list[Tensor]:
    """Labels and boxes given to the locations of each image -> rows of its ground truth, -1 for background."""
    rows = []
    for label, box, truth in zip(labels, boxes, instances):
        row = torch.full_like(label, -1)
        at = (label != NUM_CLASSES).nonzero().squeeze(1)
        if len(at):
            row[at] = (box[at].unsqueeze(1) == truth.gt_boxes.tensor).all(dim=2).int().argmax(dim=1)
        rows.append(row)
    return rows


class Detectron2:
    """`detectron2.modeling.meta_arch.fcos.FCOS`."""

    name, recipe = "detectron2", "detectron2"

    def _detector(self, backbone: nn.Module | None = None, head: nn.Module | None = None) -> nn.Module:
        from detectron2.modeling.meta_arch.fcos import FCOS as Detectron2FCOS

        return Detectron2FCOS(
            backbone=backbone or _Shapes(),
            head=head or nn.Identity(),
            head_in_features=list(FEATURES),
            num_classes=NUM_CLASSES,
            test_score_thresh=SCORE_THRESHOLD,
            pixel_mean=list(RECIPES["detectron2"].pixel_mean),
            pixel_std=list(RECIPES["detectron2"].pixel_std),
        )

    def assign(self, setting: Setting) -> Job:
        detector, truths = self._detector().to(setting.device), workload.truths(setting)
        instances = as_gt_instances(truths, setting, setting.device)
        features = empty_maps(setting)

        if hasattr(detector, "match_anchors"):  # 0.6
            return Job(
                lambda: detector.match_anchors(detector.anchor_generator(features), instances),
                lambda rows: as_batch_rows(rows, truths),
            )
        return Job(
            lambda: detector.label_anchors(detector.anchor_generator(features), instances),
            lambda labelled: as_batch_rows(_rows_of(*labelled, instances), truths),
        )

    def loss(self, setting: Setting) -> Job:
        detector, maps = self._detector().to(setting.device), workload.training_maps(setting)
        instances = as_gt_instances(workload.truths(setting), setting, setting.device)
        leaves = maps.leaves()

        def run() -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
            detector.__dict__.pop("loss_normalizer", None)  # its moving average starts anew
            with EventStorage():
                losses = detector.forward_training(
                    None, maps.logits, [maps.logits, maps.raw_ltrb, maps.quality], instances
                )
            return losses, torch.autograd.grad(sum(losses.values()), leaves)

        return Job(run, as_losses)

    def decode(self, setting: Setting) -> Job:
        detector, (maps, restore) = self._detector().to(setting.device), fresh(workload.detection_maps(setting))
        images = SimpleNamespace(image_sizes=[(setting.height, setting.width)] * setting.batch)

        @torch.inference_mode()
        def run() -> list[Instances]:
            predictions = [maps.logits, maps.raw_ltrb, maps.quality]
            return detector.forward_inference(images, maps.logits, predictions)

        return Job(run, as_detections, restore)

    def _model(self, state: dict[str, Tensor]) -> nn.Module:
        """R-50-FPN as in its `configs/common/models/fcos.py`, with weights of ours."""
        from detectron2.modeling.backbone import FPN, BasicStem, ResNet
        from detectron2.modeling.backbone.fpn import LastLevelP6P7
        from detectron2.modeling.meta_arch.fcos import FCOSHead

        from fcos_d2.weights.families.detectron2 import DETECTRON2

        features = ["res3", "res4", "res5"]
        stages = ResNet.make_default_stages(depth=50, stride_in_1x1=True, norm="FrozenBN")
        body = ResNet(BasicStem(3, 64, norm="FrozenBN"), stages, out_features=features, freeze_at=2)
        backbone = FPN(body, features, 256, top_block=LastLevelP6P7(256, 256, "p5"))
        head = FCOSHead(
            input_shape=[ShapeSpec(channels=256)] * 5, num_classes=NUM_CLASSES, conv_dims=[256] * 4, norm=_group_norm
        )
        return load(self._detector(backbone, head), state, DETECTRON2.rules)

    def forward(self, setting: Setting) -> Job:
        model = self._model(calibrated(self.recipe, setting).state_dict()).to(setting.device)
        model = in_mode(model.eval(), setting.mode)
        return _detection(model, setting)

    def train(self, setting: Setting) -> Job:
        model = self._model(build_model(self.recipe).state_dict()).to(setting.device)
        model = in_mode(model.train(), setting.mode)
        instances = as_gt_instances(workload.truths(setting), setting)
        inputs = [{"image": workload.image(setting, i), "instances": x} for i, x in enumerate(instances)]

        def losses() -> dict[str, Tensor]:
            model.__dict__.pop("loss_normalizer", None)
            with EventStorage():
                return model(inputs)

        return training_job(model, losses, setting)

    def data(self, setting: Setting) -> Job:
        from detectron2.data import DatasetMapper
        from detectron2.data import transforms as T

        resize = T.ResizeShortestEdge(800, 1333)
        return mapping_job(DatasetMapper(is_train=True, augmentations=[resize], image_format="BGR"), setting)


class Torchvision:
    """`torchvision.models.detection.FCOS`."""

    name, recipe = "torchvision", "torchvision"

    def _detector(self, backbone: nn.Module | None = None, **options: Any) -> nn.Module:
        from torchvision.models.detection import FCOS as TorchvisionFCOS

        small = backbone or _Channels()
        return TorchvisionFCOS(small, NUM_CLASSES, score_thresh=SCORE_THRESHOLD, **options)

    def _anchors(self, detector: nn.Module, setting: Setting, features: list[Tensor]) -> list[Tensor]:
        images = SimpleNamespace(
            tensors=torch.empty(setting.batch, 3, setting.height, setting.width, device=setting.device),
            image_sizes=[(setting.height, setting.width)] * setting.batch,
        )
        return detector.anchor_generator(images, features)

    def assign(self, setting: Setting) -> Job:
        detector, truths = self._detector().to(setting.device), workload.truths(setting)
        features = empty_maps(setting)
        counts = [x[0, 0].numel() for x in features]
        # Its assignment is the first part of `compute_loss`, which hands the rows to the head.
        rows_only = SimpleNamespace(
            center_sampling_radius=detector.center_sampling_radius,
            head=SimpleNamespace(compute_loss=lambda targets, outputs, anchors, rows: rows),
        )
        targets = as_targets(truths, setting.device)

        @torch.no_grad()
        def run() -> list[Tensor]:
            anchors = self._anchors(detector, setting, features)
            return type(detector).compute_loss(rows_only, targets, {}, anchors, counts)

        return Job(run, lambda rows: as_batch_rows(rows, truths))

    def loss(self, setting: Setting) -> Job:
        detector, maps = self._detector().to(setting.device), workload.training_maps(setting)
        targets = as_targets(workload.truths(setting), setting.device)
        leaves = maps.leaves()
        counts = [x[0, 0].numel() for x in maps.logits]

        def run() -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
            outputs = flatten_maps(maps)
            anchors = self._anchors(detector, setting, maps.logits)
            losses = detector.compute_loss(targets, outputs, anchors, counts)
            return losses, torch.autograd.grad(sum(losses.values()), leaves)

        return Job(run, as_losses)

    def decode(self, setting: Setting) -> Job:
        detector, (maps, restore) = self._detector().to(setting.device), fresh(workload.detection_maps(setting))
        sizes = [(setting.height, setting.width)] * setting.batch
        counts = [x[0, 0].numel() for x in maps.logits]

        @torch.inference_mode()
        def run() -> list[dict[str, Tensor]]:
            outputs = {name: list(x.split(counts, dim=1)) for name, x in flatten_maps(maps).items()}
            anchors = [list(a.split(counts)) for a in self._anchors(detector, setting, maps.logits)]
            return detector.postprocess_detections(outputs, anchors, sizes)

        return Job(run, as_detections, restore)

    def _model(self, state: dict[str, Tensor], setting: Setting) -> nn.Module:
        """As `fcos_resnet50_fpn` with pretrained weights is built, with weights of ours."""
        from torchvision.models import resnet50
        from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
        from torchvision.ops import FrozenBatchNorm2d
        from torchvision.ops.feature_pyramid_network import LastLevelP6P7

        from fcos_d2.weights.families.torchvision import TORCHVISION

        body = resnet50(norm_layer=FrozenBatchNorm2d)
        backbone = _resnet_fpn_extractor(body, 3, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256))
        sides = {"min_size": min(setting.height, setting.width), "max_size": max(setting.height, setting.width)}
        return load(self._detector(backbone, **sides), state, TORCHVISION.rules)

    def forward(self, setting: Setting) -> Job:
        model = self._model(calibrated(self.recipe, setting).state_dict(), setting).to(setting.device)
        model = in_mode(model.eval(), setting.mode)
        images = [workload.image(setting, i) / 255 for i in range(setting.batch)]

        def run() -> list[dict[str, Tensor]]:
            with evaluating(model), precision(setting):
                return model([x.to(setting.device) for x in images])

        return Job(run, as_detections)

    def train(self, setting: Setting) -> Job:
        model = self._model(build_model(self.recipe).state_dict(), setting).to(setting.device)
        model = in_mode(model.train(), setting.mode)
        images = [workload.image(setting, i) / 255 for i in range(setting.batch)]
        truths = workload.truths(setting)

        def losses() -> dict[str, Tensor]:
            return model([x.to(setting.device) for x in images], as_targets(truths, setting.device))

        return training_job(model, losses, setting)


PEERS: dict[str, Callable[[], Any]] = {"detectron2": Detectron2, "torchvision": Torchvision}


def get_peer(name: str) -> Any:
    """A peer by the name of its row in `PEERS`, this package as "fcos_d2:RECIPE", or another as "NAME=module:Class".

    Raises:
        FcosError: it cannot be imported, or has none of the methods of a peer.
    """
    if name.startswith("fcos_d2:"):
        return Ours(name.partition(":")[2])
    if name in PEERS:
        return PEERS[name]()
    label, _, path = name.partition("=")
    module, _, attribute = path.partition(":")
    if not (label and module and attribute):
        raise FcosError(f"--peer {name!r}: write NAME=module:Class, or one of: {', '.join(PEERS)}.")
    try:
        peer = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError) as error:
        raise FcosError(f"--peer {name!r} cannot be imported: {error}") from error
    if not any(hasattr(peer, suite) for suite in SUITES):
        raise FcosError(f"--peer {name!r} has none of the methods {', '.join(SUITES)}.")
    peer.name = label
    if not hasattr(peer, "recipe"):
        peer.recipe = "detectron2"
    return peer


class _Shapes(Backbone):
    """Feature shapes without a network."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError("head outputs are given, so no features are needed")

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {name: ShapeSpec(channels=256, stride=s) for name, s in zip(FEATURES, STRIDES)}


def _group_norm(channels: int) -> nn.Module:
    """Its "GN"; release 0.6 asks for the norm of one channel, too, only to look at its name."""
    return nn.GroupNorm(32, channels) if channels > 1 else nn.Identity()


class _Channels(nn.Module):
    """What torchvision asks of a backbone, without a network."""

    out_channels = 32


# ------------------------------------------------------------------------------------------------- inputs and answers
def as_gt_instances(truths: list[Truth], setting: Setting, device: str = "cpu") -> list[Instances]:
    size = (setting.height, setting.width)
    return [Instances(size, gt_boxes=Boxes(t.boxes.clone()), gt_classes=t.classes).to(device) for t in truths]


def empty_maps(setting: Setting) -> list[Tensor]:
    """Maps of one channel that stand for features."""
    sizes = workload.feature_sizes(setting.height, setting.width)
    return [torch.empty(setting.batch, 1, *size, device=setting.device) for size in sizes]


def as_targets(truths: list[Truth], device: str) -> list[dict[str, Tensor]]:
    """What torchvision calls them."""
    return [{"boxes": t.boxes.to(device), "labels": t.classes.to(device)} for t in truths]


def fresh(maps: Maps) -> tuple[Maps, Callable[[], None]]:
    """Maps to work on, and what writes them anew before each run: Detectron2 overwrites them with their sigmoid.

    Written just before, as by a head, they lie in the cache as far as they fit; so everybody gets them like this.
    """
    parts = (maps.logits, maps.raw_ltrb, maps.quality)
    work = Maps(*([torch.empty_like(x) for x in values] for values in parts))

    def restore() -> None:
        for values, originals in zip((work.logits, work.raw_ltrb, work.quality), parts):
            for value, original in zip(values, originals):
                value.copy_(original)

    return work, restore


def flatten_maps(maps: Maps) -> dict[str, Tensor]:
    """Head outputs as torchvision's heads give them: (N, R, C), levels concatenated."""

    def flat(values: list[Tensor]) -> Tensor:
        return torch.cat([v.permute(0, 2, 3, 1).reshape(v.shape[0], -1, v.shape[1]) for v in values], dim=1)

    return {
        "cls_logits": flat(maps.logits),
        "bbox_regression": flat([v.relu() for v in maps.raw_ltrb]),
        "bbox_ctrness": flat(maps.quality),
    }


def as_batch_rows(rows: list[Tensor], truths: list[Truth]) -> Tensor:
    """Rows of each image's own boxes -> (N, R) rows of all boxes of the batch."""
    starts = [0]
    for truth in truths:
        starts.append(starts[-1] + len(truth.boxes))
    return torch.stack([torch.where(r < 0, r, r + start) for r, start in zip(rows, starts)]).cpu()


def as_losses(result: tuple[dict[str, Tensor], Any]) -> tuple[dict[str, float], list[Tensor]]:
    """Losses by the words in their names, and gradients."""
    losses, grads = result
    values = {}
    for name, loss in losses.items():
        kinds = {"cls": "class", "classification": "class", "loc": "box", "bbox_regression": "box"}
        kind = next((kind for word, kind in kinds.items() if name.endswith(word)), "quality")
        values[kind] = float(loss.detach())
    return values, [g.cpu() for g in grads]


def as_detections(images: list[Any]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(boxes, scores, classes) of each image. Boxes without area, which torchvision reports, are left out."""
    found = []
    for image in images:
        if isinstance(image, Instances):
            boxes, scores, classes = image.pred_boxes.tensor, image.scores, image.pred_classes
        else:
            boxes, scores, classes = image["boxes"], image["scores"], image["labels"]
        keep = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        found.append((boxes[keep].cpu(), scores[keep].cpu(), classes[keep].cpu()))
    return found


# ------------------------------------------------------------------------------------------------------- whole models
def build_model(recipe: str, seed: int = 0, backbone: str = "R_50_FPN") -> FCOS:
    """A model of this package from random weights."""
    config = compose(recipe, backbone, "1x").model
    if recipe == "torchvision":
        config.backbone.bottom_up.stride_in_1x1 = False
    config.dense.selector.score_threshold = SCORE_THRESHOLD
    torch.manual_seed(seed)
    return instantiate(config)


@torch.no_grad()
def calibrated(recipe: str, setting: Setting, images: Sequence[Tensor] = (), backbone: str = "R_50_FPN") -> FCOS:
    """A model whose scores on images, by default those of a setting, are like a trained one's: 1,000 an image are over
    `SCORE_THRESHOLD`."""
    model = build_model(recipe, backbone=backbone).eval()
    images = images or [workload.image(setting, i) for i in range(setting.batch)]
    inputs = [{"image": image} for image in images]
    images = model.preprocess_image(inputs)
    features = model.backbone(images.tensor)
    head = model.dense.head
    logits, _, quality = head([features[name] for name in FEATURES])
    bias = head.cls_logits.bias
    spread = torch.cat([x.flatten() for x in logits]).std()
    head.cls_logits.weight.mul_(1.5 / spread)
    logits = [(x - bias.view(-1, 1, 1)) * (1.5 / spread) for x in logits]
    margin = torch.cat([(x - workload._needed(q)).flatten() for x, q in zip(logits, quality)])
    bias.fill_(-margin.topk(1000 * len(inputs)).values[-1])
    return model


def load(model: nn.Module, state: dict[str, Tensor], rules: Any) -> nn.Module:
    """Give a peer's model the weights of ours.

    Raises:
        FcosError: not all of its parameters got one.
    """
    from fcos_d2.weights.rules import to_theirs

    tensors = to_theirs(state, rules).tensors
    lacking = model.load_state_dict(tensors, strict=False)
    missing = [name for name in lacking.missing_keys if not name.endswith(("pixel_mean", "pixel_std"))]
    if missing:
        raise FcosError(f"{type(model).__name__} got no weight for {', '.join(missing[:3])} and {len(missing)} in all.")
    return model


def in_mode(model: nn.Module, mode: str) -> nn.Module:
    """Prepare a model for one of `MODES`; precision is set where it runs."""
    if "channels_last" in mode:
        model.to(memory_format=torch.channels_last)
        model.backbone.register_forward_pre_hook(
            lambda module, args: (args[0].contiguous(memory_format=torch.channels_last),)
        )
    if "compiled" in mode:
        head = model.dense.head if hasattr(model, "dense") else model.head
        model.backbone.compile()
        head.compile()
    return model


def precision(setting: Setting) -> Any:
    """The context that a mode runs in."""
    low = "bf16" in setting.mode and "optimized" not in setting.mode
    return torch.autocast(setting.device, torch.bfloat16, enabled=low)


def _detection(model: nn.Module, setting: Setting) -> Job:
    """Images to detections, for the two that take Detectron2's inputs."""
    inputs = [{"image": workload.image(setting, i)} for i in range(setting.batch)]

    def run() -> list[Instances]:
        with evaluating(model), precision(setting):
            return [x["instances"] for x in model(inputs)]

    return Job(run, as_detections)


def training_job(
    model: nn.Module, losses: Callable[[], dict[str, Tensor]], setting: Setting, average: nn.Module | None = None
) -> Job:
    """One step of SGD: losses, gradients, update. The learning rate is 0, so that all runs are the same."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.0, momentum=0.9)

    def run() -> tuple[dict[str, Tensor], list[Tensor]]:
        if average is not None and average.average is not None:
            average.average.fill_(average.moving_start)
        with precision(setting):
            values = losses()
        sum(values.values()).backward()
        optimizer.step()
        grads = [p.grad for p in trained]
        optimizer.zero_grad(set_to_none=True)
        return values, grads

    # Parameters come in another order in each project; the norm of each gradient is compared, sorted.
    def answer(result: tuple[dict[str, Tensor], list[Tensor]]) -> tuple[dict[str, float], list[Tensor]]:
        values, grads = as_losses(result)
        return values, [torch.stack([g.norm() for g in grads]).sort().values]

    return Job(run, answer)


def mapping_job(mapper: Callable[[dict[str, Any]], dict[str, Any]], setting: Setting) -> Job:
    """Read and resize `setting.batch` images of the data set in `setting.data`."""
    records = workload.records(setting)

    def run() -> list[dict[str, Any]]:
        return [mapper(record) for record in records]

    return Job(run, lambda mapped: [x["image"] for x in mapped])
