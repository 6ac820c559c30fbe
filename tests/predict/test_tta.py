"""Test-time augmentation of a detector: against itself, its mirror image, and a plain transcription."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import detectron2.data.transforms as T
import numpy as np
import pytest
import reference
import torch
from detectron2.config import get_cfg
from detectron2.data.detection_utils import read_image
from detectron2.structures import Boxes, Instances
from PIL import Image
from scenes import detector, image_inputs, points_of
from torch import Tensor, nn

from fcos_d2 import Predictor, add_fcos_config
from fcos_d2.errors import FcosError
from fcos_d2.modeling import FCOS
from fcos_d2.predict import DetectorWithTTA
from fcos_d2.zoo.recipes import RECIPES
from fcos_d2.zoo.tta import PRESETS, TTA

VARIANT = "fcos_R_18_slim_FPN_small"
SMALL = ("model.num_classes=3", "dataloader.test.mapper.augmentations[0].short_edge_length=64")
FIELDS = ("pred_boxes", "scores", "pred_classes", "locations")
KINDS = ("improved", "original", "mmdet", "torchvision")  # of suppression, clipping and far corners


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest) -> FCOS:
    """Untrained, with scores on both sides of the threshold."""
    torch.manual_seed(0)
    return scored(request.param)


def scored(recipe: str) -> FCOS:
    """With boxes that overlap each other."""
    made = detector(recipe).eval()
    head = made.dense.head
    nn.init.normal_(head.cls_logits.weight, std=0.3)
    nn.init.constant_(head.cls_logits.bias, -1.0)
    nn.init.normal_(head.bbox_pred.weight, std=0.1)
    nn.init.constant_(head.bbox_pred.bias, 2.5 if made.dense.coder.activation == "exp" else 1.5)
    return made


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A file, larger than it is looked at."""
    image = np.random.default_rng(0).integers(0, 255, (12, 18, 3), dtype=np.uint8)
    path = tmp_path / "x.png"
    Image.fromarray(image).resize((144, 96), Image.Resampling.BICUBIC).save(path)
    return path


def inputs_of(path: Path, side: int = 64, order: str = "BGR") -> dict[str, Any]:
    """What Detectron2's mapper makes of a file."""
    image = read_image(str(path), order)
    resized = T.ResizeShortestEdge([side, side], 1333).get_transform(image).apply_image(image)
    tensor = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
    return {"image": tensor, "height": image.shape[0], "width": image.shape[1], "file_name": str(path)}


def columns(found: Instances) -> list[Tensor]:
    values = [found.get(name) for name in FIELDS if found.has(name)]
    return [value.tensor if isinstance(value, Boxes) else value for value in values]


def equal(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(
        a["instances"].image_size == b["instances"].image_size
        and all(torch.equal(x, y) for x, y in zip(columns(a["instances"]), columns(b["instances"]), strict=True))
        for a, b in pairs
    )


def rows(found: Instances) -> Tensor:
    """(n, 6) boxes, scores and classes."""
    return torch.cat((found.pred_boxes.tensor, found.scores[:, None], found.pred_classes[:, None].float()), dim=1)


def in_a_mirror(found: Instances, width: int) -> Tensor:
    table = rows(found)
    left, right = width - table[:, 2], width - table[:, 0]
    return torch.cat((left[:, None], table[:, 1:2], right[:, None], table[:, 3:]), dim=1)


def same(one: Tensor, other: Tensor, tolerance: float = 1e-2) -> bool:
    """Whether two tables have equal rows, in any order."""
    far = torch.cdist(one.double(), other.double(), p=torch.inf)
    return len(one) == len(other) > 3 and float(max(far.amin(0).max(), far.amin(1).max())) <= tolerance


# ------------------------------------------------------------------------------------------------------------- identity
def test_the_identity_alone_is_the_detector(model: FCOS, picture: Path) -> None:
    """To the bit, in a batch of several sizes, too, and whatever would merge views."""
    batch = [inputs_of(picture), image_inputs((48, 80)), inputs_of(picture, 72)]
    with torch.inference_mode():
        wanted = model(batch)
        assert min(len(x["instances"]) for x in wanted) > 20
        for merge in ("nms", "vote", "soft-vote"):
            assert equal(DetectorWithTTA(model, TTA(merge=merge))(batch), wanted)


def test_a_view_that_shows_the_same_gives_the_same(model: FCOS, picture: Path) -> None:
    """To the bit: candidates of one view, merged by suppression, are what the selector itself makes of them."""
    inputs = inputs_of(picture, order=model.input_format)
    with torch.inference_mode():
        wanted = model([inputs])
        for tta in (
            TTA(identity=False, sizes=(64,)), TTA(identity=False, scales=(1.0,)), TTA(sizes=(64,), scales=(1.0,)),
        ):  # fmt: skip
            assert equal(DetectorWithTTA(model, tta)([inputs]), wanted)


def test_the_identity_alone_in_a_predictor(picture: Path) -> None:
    plain = Predictor(VARIANT, weights="random", device="cpu", overrides=SMALL, score_threshold=0.0)
    wanted = plain.predict([picture] * 3, batch_size=2)
    plain.tta = TTA()
    assert equal(plain.predict([picture] * 3, batch_size=2), wanted) and len(wanted[0]["instances"]) > 50


# ----------------------------------------------------------------------------------------------------------------- laws
@pytest.mark.parametrize("merge", ["nms", "vote", "soft-vote"])
def test_a_mirror_image_has_mirrored_detections(model: FCOS, merge: str) -> None:
    """With mirror images among its views it cannot tell left from right; where boxes end a pixel early, too."""
    inputs = image_inputs((64, 96))
    mirrored = {**inputs, "image": inputs["image"].flip(-1)}
    tta = DetectorWithTTA(model, TTA(flip=True, merge=merge))
    found, other = (tta([x])[0]["instances"] for x in (inputs, mirrored))
    assert same(rows(found), in_a_mirror(other, 96))


def test_batches_change_nothing_but_rounding(picture: Path) -> None:
    """And hold inputs of one size, no more of them than asked for."""
    torch.manual_seed(0)
    model = scored("improved")
    shapes: list[tuple[int, ...]] = []
    model.backbone.register_forward_pre_hook(lambda module, args: shapes.append(tuple(args[0].shape)))
    tta = TTA(sizes=(48, 96), scales=(0.75,), flip=True)
    with torch.inference_mode():
        alone = DetectorWithTTA(model, tta)([inputs_of(picture)])[0]["instances"]
        assert [shape[0] for shape in shapes] == [1] * 6  # 48 is 0.75 times 64
        shapes.clear()
        together = DetectorWithTTA(model, replace(tta, batch_size=2))([inputs_of(picture)])[0]["instances"]
        assert [shape[0] for shape in shapes] == [2] * 3
        shapes.clear()
        batch = DetectorWithTTA(model, tta)([inputs_of(picture), image_inputs((64, 96))])
        assert max(shape[0] for shape in shapes) == 2
    for found in (together, batch[0]["instances"]):
        assert same(rows(found), rows(alone))


def test_images_of_a_batch_do_not_mix(picture: Path) -> None:
    torch.manual_seed(0)
    model = scored("improved")
    tta = DetectorWithTTA(model, TTA(scales=(0.5, 1.5), flip=True))
    batch = [inputs_of(picture), image_inputs((80, 48)), image_inputs((64, 96))]
    with torch.inference_mode():
        for found, inputs in zip(tta(batch), batch):
            alone = tta([inputs])[0]["instances"]
            assert found["instances"].image_size == (inputs.get("height", alone.image_size[0]), alone.image_size[1])
            assert same(rows(found["instances"]), rows(alone))


# ------------------------------------------------------------------------------------------------------- transcription
@pytest.mark.parametrize("recipe", ["adelaidet", "mmdet"])
def test_equals_the_plain_transcription(recipe: str, picture: Path) -> None:
    """Candidates of each view found, brought back and suppressed in plain code, box by box."""
    torch.manual_seed(0)
    model, parts = scored(recipe), RECIPES[recipe]
    inputs, tta = inputs_of(picture), TTA(sizes=(48, 90), flip=True)
    image = np.ascontiguousarray(np.asarray(Image.open(picture))[:, :, ::-1])
    every = {**parts.selector, "nms_threshold": 1.0, "max_detections": 10**6}
    candidates = []
    for side in (64, 48, 90):
        plain = T.ResizeShortestEdge([side, side], 4000).get_transform(image).apply_image(image)
        for pixels in (plain, plain[:, ::-1]):
            height, width = pixels.shape[:2]
            shown = {"image": torch.from_numpy(pixels.transpose(2, 0, 1).copy())}
            with torch.no_grad():
                predictions, sizes = model._predictions([shown])
            found = reference.detect(
                predictions.logits, predictions.raw_ltrb, predictions.quality, points_of(predictions.locations), sizes,
                replace(parts, selector=every),
            )[0]  # fmt: skip
            for c in found:
                if pixels is not plain:
                    c.box = [width - c.box[2], c.box[1], width - c.box[0], c.box[3]]
                c.box = [v * s for v, s in zip(c.box, (96 / width, 64 / height) * 2)]
            candidates += found
    options = {"nms_threshold": model.dense.selector.nms_threshold, "nms_convention": "plain"}
    kept = reference.suppress(candidates, None, options)[:100]
    with torch.inference_mode():
        ours = DetectorWithTTA(model, tta)([inputs])[0]["instances"]
    wanted = torch.tensor([[min(max(v * 1.5, 0), most) for v, most in zip(c.box, (144, 96) * 2)] for c in kept])
    wanted, scores = wanted.float(), torch.tensor([c.score for c in kept])
    large = (wanted[:, 2:] > wanted[:, :2]).all(dim=1)  # some lie in the padding
    assert len(ours) == int(large.sum()) > 20
    assert torch.allclose(ours.scores, scores[large], atol=1e-5)
    assert torch.allclose(ours.pred_boxes.tensor, wanted[large], atol=2e-2)


# ----------------------------------------------------------------------------------------------------- other detectors
def test_a_dense_detector_of_detectron2(picture: Path) -> None:
    """Its own FCOS: what it reports of each view, suppressed as it suppresses."""
    from detectron2.modeling.meta_arch import fcos as theirs

    torch.manual_seed(0)
    ours = scored("detectron2")
    shapes = [ours.backbone.output_shape()[name] for name in ours.head_in_features]
    norm = lambda channels: nn.GroupNorm(min(32, channels), channels)  # noqa: E731
    head = theirs.FCOSHead(input_shape=shapes, conv_dims=[64], num_classes=3, norm=norm)
    nn.init.constant_(head.cls_score.bias, 1.0)
    model = theirs.FCOS(
        backbone=copy.deepcopy(ours.backbone), head=head, head_in_features=ours.head_in_features, num_classes=3,
        pixel_mean=(103.5, 116.3, 123.7), pixel_std=(1.0, 1.0, 1.0),
    ).eval()  # fmt: skip
    inputs = inputs_of(picture)
    with torch.inference_mode():
        wanted = model([inputs])[0]["instances"]
        assert equal(DetectorWithTTA(model, TTA())([inputs]), [{"instances": wanted}]) and len(wanted) > 5
        found = DetectorWithTTA(model, TTA(scales=(1.5,), flip=True))([inputs])[0]["instances"]
        other = {**inputs, "image": inputs["image"].flip(-1)}
        del other["file_name"]
        mirrored = DetectorWithTTA(model, TTA(flip=True))([other])[0]["instances"]
        flipped = DetectorWithTTA(model, TTA(flip=True))([inputs])[0]["instances"]
    assert found.image_size == (96, 144) and float(found.scores[0]) >= float(wanted.scores[0])
    assert same(in_a_mirror(mirrored, 144), rows(flipped))


class Masks(nn.Module):
    """Finds something that cannot be merged as boxes are."""

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found = Instances((4, 4), pred_boxes=Boxes(torch.zeros(1, 4)), scores=torch.ones(1))
        found.pred_classes, found.pred_masks = torch.zeros(1).long(), torch.zeros(1, 4, 4)
        return [{"instances": found} for _ in batched_inputs]


def test_a_detector_of_masks_is_refused() -> None:
    tta = DetectorWithTTA(Masks().eval(), TTA(flip=True))
    with pytest.raises(FcosError, match=r"Masks finds something else: .*GeneralizedRCNNWithTTA"):
        tta([image_inputs((4, 4))])


# ----------------------------------------------------------------------------------------------------------- predictor
@pytest.fixture(scope="module")
def make() -> Callable[..., Predictor]:
    def made(**options: Any) -> Predictor:
        return Predictor(VARIANT, weights="random", device="cpu", overrides=SMALL, score_threshold=0.0, **options)

    return made


def test_a_predictor_with_views(make: Callable[..., Predictor], picture: Path) -> None:
    torch.manual_seed(0)
    predictor = make(tta="multiscale")
    assert predictor.tta is PRESETS["multiscale"].tta
    found = predictor(picture)["instances"]
    batch = predictor.predict([picture, Image.open(picture), np.asarray(Image.open(picture))], 2, "RGB")
    assert found.image_size == (96, 144) and len(found) > 20
    for result in batch:
        assert same(rows(result["instances"]), rows(found))
    predictor.tta = None
    plain = predictor(picture)["instances"]
    assert len(plain) != len(found) or not torch.equal(plain.scores, found.scores)
    fast = Predictor(VARIANT, weights="random", device="cpu", overrides=SMALL, optimize=True, tta={"flip": True})
    assert fast.tta == TTA(flip=True) and fast(picture)["instances"].image_size == (96, 144)


def test_thresholds_count_after_merging(make: Callable[..., Predictor], picture: Path) -> None:
    torch.manual_seed(0)
    predictor = make(tta="flip")
    scores = predictor(picture)["instances"].scores
    torch.manual_seed(0)
    least = float(scores[5:7].mean())
    few = Predictor(VARIANT, weights="random", device="cpu", overrides=SMALL, score_threshold=least, tta="flip")
    assert torch.allclose(few(picture)["instances"].scores, scores[scores > least])


@pytest.mark.parametrize("merge", ["nms", "vote", "soft-vote"])
def test_a_higher_threshold_reports_fewer_of_the_same_boxes(picture: Path, merge: str) -> None:
    """Boxes below it still vote."""
    options = {"weights": "random", "device": "cpu", "overrides": SMALL, "tta": {"flip": True, "merge": merge}}

    def found(least: float) -> Instances:
        torch.manual_seed(0)
        predictor = Predictor(VARIANT, score_threshold=least, **options)
        nn.init.normal_(predictor.model.dense.head.cls_logits.weight, std=0.3)
        return predictor(picture)["instances"]

    all_of_them = found(0.05)
    least = float(all_of_them.scores.median())
    above = all_of_them.scores > least
    assert int(above.sum()) > 3 and torch.equal(rows(all_of_them[above]), rows(found(least)))


def test_what_the_config_says_counts(tmp_path: Path, picture: Path) -> None:
    path = tmp_path / "x.yaml"
    add_fcos_config(cfg := get_cfg())
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.BACKBONE.NAME = "FCOS", "build_fcos_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.update({"DEPTH": 18, "RES2_OUT_CHANNELS": 32, "STEM_OUT_CHANNELS": 32})
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS, cfg.MODEL.FCOS.NUM_CLASSES, cfg.INPUT.MIN_SIZE_TEST = 64, 3, 64
    cfg.TEST.AUG.update({"ENABLED": True, "MIN_SIZES": (48, 64)})
    path.write_text(cfg.dump())
    found = Predictor(path, weights="random", device="cpu")
    assert found.tta == TTA(sizes=(48, 64), flip=True) and found(picture)["instances"].image_size == (96, 144)
    assert Predictor(path, weights="random", device="cpu", tta=False).tta is None
    assert Predictor(path, weights="random", device="cpu", tta="none").tta is None


def test_what_is_wrong_with_a_predictor_is_one_sentence(make: Callable[..., Predictor], picture: Path) -> None:
    with pytest.raises(FcosError, match=r"There is no preset 'fliip'"):
        make(tta="fliip")
    with pytest.raises(FcosError, match=r"resize=False"):
        make(tta="flip").predict([picture], resize=False)


def test_progress_is_told() -> None:
    torch.manual_seed(0)
    told: list[tuple[int, int, int]] = []
    tta = DetectorWithTTA(scored("improved"), TTA(scales=(0.5,), flip=True), tell=lambda *now: told.append(now))
    with torch.inference_mode():
        for _ in range(2):
            tta([image_inputs((64, 64))])
    views = [(view, 4) for view in range(1, 5)]
    assert told == [(0, *v) for v in views] + [(1, 0, 0)] + [(1, *v) for v in views] + [(2, 0, 0)]
