"""FCOS as a one-stage detector of Detectron2."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Boxes
from scenes import CPU, dense_of, detector, distinct, image_inputs, random_boxes, total

import fcos_d2
from fcos_d2.errors import FcosError
from fcos_d2.modeling import FCOS
from fcos_d2.modeling.meta_arch import as_instances
from fcos_d2.structures import Detections


@pytest.fixture(scope="module")
def model() -> FCOS:
    """A small detector that is sure of itself, so that it finds something without training."""
    torch.manual_seed(0)
    model = detector("improved")
    with torch.no_grad():
        model.dense.head.cls_logits.bias.fill_(0.0)
        model.dense.head.bbox_pred.bias.fill_(1.5)
    return model


def test_registered_under_its_name() -> None:
    assert META_ARCH_REGISTRY.get("FCOS") is fcos_d2.FCOS is FCOS


def test_losses_while_training(model: FCOS) -> None:
    batch = [image_inputs((64, 96), random_boxes(3, (64, 96))), image_inputs((80, 64), random_boxes(1, (80, 64)))]
    losses = model.train()(batch)
    assert list(losses) == ["loss_fcos_cls", "loss_fcos_loc", "loss_fcos_ctr"]
    assert all(v.shape == () and v.dtype == torch.float32 and v.isfinite() for v in losses.values())
    assert total(losses).requires_grad


def test_detections_in_inference(model: FCOS) -> None:
    with torch.no_grad():
        results = model.eval()([image_inputs((64, 96)), image_inputs((80, 64))])
    assert [r["instances"].image_size for r in results] == [(64, 96), (80, 64)]
    for found in (r["instances"] for r in results):
        assert len(found) > 0
        assert set(found.get_fields()) == {"pred_boxes", "scores", "pred_classes", "locations"}
        assert isinstance(found.pred_boxes, Boxes)
        assert found.pred_boxes.nonempty().all()
        x0, y0, x1, y1 = found.pred_boxes.tensor.unbind(1)
        assert min(x0.min(), y0.min()) >= 0
        assert x1.max() <= found.image_size[1]
        assert y1.max() <= found.image_size[0]
        assert ((found.scores > 0) & (found.scores <= 1)).all()
        assert (found.scores.diff() <= 0).all()
        assert ((found.pred_classes >= 0) & (found.pred_classes < 3)).all()


def test_detections_are_scaled_to_the_wanted_size(model: FCOS) -> None:
    inputs = image_inputs((64, 96))
    with torch.no_grad():
        plain = model.eval()([inputs])[0]["instances"]
        large = model([{**inputs, "height": 128, "width": 288}])[0]["instances"]
    assert large.image_size == (128, 288)
    last = torch.tensor([0.0, 0, 1, 1])  # the pixel that the recipe adds is one of the wanted size
    expected = (plain.pred_boxes.tensor - last) * torch.tensor([3.0, 2, 3, 2]) + last
    assert torch.allclose(large.pred_boxes.tensor, expected, atol=1e-3)
    assert torch.equal(large.scores, plain.scores)


def test_a_batch_is_its_images(model: FCOS) -> None:
    """Padded to the same size, an image is treated alike alone and in company."""
    one, two = image_inputs((64, 96)), image_inputs((60, 90))
    with torch.no_grad():
        both = model.eval()([one, two])
        alone = [model([one])[0], model([two])[0]]
    for a, b in zip(both, alone):
        assert torch.allclose(a["instances"].pred_boxes.tensor, b["instances"].pred_boxes.tensor, atol=1e-3)
        assert torch.allclose(a["instances"].scores, b["instances"].scores, atol=1e-5)
        assert torch.equal(a["instances"].pred_classes, b["instances"].pred_classes)


def test_preprocessing_uses_the_pixel_statistics(model: FCOS) -> None:
    other = FCOS(
        backbone=model.backbone,
        dense=model.dense,
        num_classes=3,
        pixel_mean=(10.0, 20.0, 30.0),
        pixel_std=(2.0, 4.0, 5.0),
        input_format="RGB",
    )
    tensor = other.preprocess_image([{"image": torch.full((3, 33, 32), 200, dtype=torch.uint8)}]).tensor
    assert other.input_format == "RGB"
    assert tensor.shape == (1, 3, 64, 32)
    assert tensor[0, :, 0, 0].tolist() == [95, 45, 34]
    assert (tensor[:, :, 33:] == 0).all()  # padding is put on after that


@pytest.mark.parametrize("name", [n for n in distinct("features", "top_levels", "head_name") if "6l" not in n])
def test_strides_come_from_the_backbone(name: str) -> None:
    model = detector(name)
    assert model.strides == [2 ** int(f[1:]) for f in model.head_in_features]


def test_all_features_by_default(model: FCOS) -> None:
    other = FCOS(backbone=model.backbone, dense=model.dense, num_classes=3)
    assert other.head_in_features == ["p3", "p4", "p5", "p6", "p7"]
    assert other.input_format == "BGR"


def test_the_state_is_named_by_part(model: FCOS) -> None:
    parts = {name.split(".")[0] for name in model.state_dict()}
    assert parts == {"backbone", "dense"}
    assert "dense.head.cls_logits.weight" in model.state_dict()
    assert "dense.head.scales" in model.state_dict()
    with_average = detector("detectron2").state_dict()
    assert with_average["dense.loss.average"] == 300


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"num_classes": 4},
            "The model has num_classes=4, but its head has 3: set only model.num_classes.",
        ),
        (
            {"in_features": ["p3", "p4", "p5", "p6", "p8"]},
            "in_features names 'p8', but the backbone has: p3, p4, p5, p6, p7.",
        ),
        (
            {"in_features": ["p3", "p4"]},
            "The head was built for 5 levels, but in_features has 2: p3, p4.",
        ),
    ],
)
def test_parts_that_do_not_fit(model: FCOS, changes: dict[str, Any], message: str) -> None:
    arguments = {"backbone": model.backbone, "dense": model.dense, "num_classes": 3, **changes}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        FCOS(**arguments)


def test_channels_that_do_not_fit(model: FCOS) -> None:
    with pytest.raises(ValueError, match=r"^The head wants 32 channels, but feature 'p3' has 64\.$"):
        FCOS(backbone=model.backbone, dense=dense_of("improved"), num_classes=3)


def test_batch_invariance_of_a_live_model() -> None:
    """Setting it prepares the model: an image beside a larger one is what it is alone; the optimizer's weights stay."""
    torch.manual_seed(0)
    model = detector("improved", norm="GN").double().eval()
    backbone, dense, weights = model.backbone, model.dense, list(model.parameters())
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("bias"):
                p.normal_(0, 0.3)
        dense.head.cls_logits.bias.fill_(0.0)
        dense.head.bbox_pred.bias.fill_(1.5)
    small, large = image_inputs((64, 96)), image_inputs((128, 160))

    def difference() -> float:
        with torch.no_grad():
            alone, together = model([small])[0]["instances"], model([small, large])[0]["instances"]
        if len(alone) != len(together):
            return float("inf")
        return float((alone.scores - together.scores).abs().max())

    model.one_by_one = False
    assert difference() > 1e-3
    model.batch_invariant = True
    assert difference() < 1e-6
    assert [id(p) for p in model.parameters()] == [id(p) for p in weights]
    assert model.backbone is not backbone
    assert model.dense is not dense
    assert not [m for part in (backbone, dense) for m in part.modules() if hasattr(m, "hides_padding")]
    prepared = model.backbone
    model.batch_invariant = True
    assert model.backbone is prepared
    model.batch_invariant = False
    assert difference() > 1e-3
    model.dense.head = dense.head  # not a prepared one
    model.batch_invariant = True
    assert difference() < 1e-6


def test_batch_invariance_that_cannot_be_is_refused() -> None:
    model = detector("torchvision")
    with pytest.raises(ValueError, match=r"^batch_invariant is True, but LocationGrid\.origin 'corner'"):
        model.batch_invariant = True
    assert model.batch_invariant is False


def test_a_callers_backbone_stays_as_it_is(model: FCOS) -> None:
    """With and without batch invariance: classes, hooks and names."""
    before = [(id(m), type(m), {key: id(x) for key, x in vars(m).items()}) for m in model.backbone.modules()]
    for wanted in (False, True):
        other = FCOS(backbone=model.backbone, dense=model.dense, num_classes=3, batch_invariant=wanted)
        assert other.batch_invariant is wanted
        assert list(other.state_dict()) == list(model.state_dict())
        after = [(id(m), type(m), {key: id(x) for key, x in vars(m).items()}) for m in model.backbone.modules()]
        assert after == before


def test_images_too_small_for_a_norm() -> None:
    """A batch norm cannot train on one value of each channel; two images, or a larger one, are enough."""
    image = image_inputs((32, 32), torch.tensor([[4.0, 4.0, 28.0, 28.0]]))
    small = detector("improved", norm="BN").train()
    with pytest.raises(FcosError, match=r"^A batch of 1 images of at most 32x32 pixels .*--batch-size\)\.$"):
        small([image])
    assert total(small([image, image])).isfinite()
    assert total(small([image_inputs((33, 32), torch.tensor([[4.0, 4.0, 28.0, 28.0]]))])).isfinite()


@pytest.mark.parametrize("training", [True, False])
def test_a_broken_image_is_named(model: FCOS, training: bool) -> None:
    bad = torch.rand(3, 32, 32)
    bad[0, 0, 0] = float("nan")
    batch = [image_inputs((32, 32), torch.empty(0, 4)), {"image": bad, "file_name": "broken.jpg"}]
    with pytest.raises(ValueError, match=r"^image broken\.jpg holds values that are not finite"):
        model.train(training)(batch)


def test_splitting_a_batch_keeps_empty_images() -> None:
    found = Detections(
        torch.tensor([1, 1, 3]), torch.arange(12.0).view(3, 4), torch.rand(3), torch.tensor([5, 6, 7]), torch.arange(3)
    )
    split = as_instances(found, torch.rand(3, 2), [(10, 20), (30, 40), (50, 60), (70, 80)])
    assert [len(x) for x in split] == [0, 2, 0, 1]
    assert [x.image_size for x in split] == [(10, 20), (30, 40), (50, 60), (70, 80)]
    assert split[1].pred_classes.tolist() == [5, 6]
    assert split[3].pred_boxes.tensor.tolist() == [[8, 9, 10, 11]]
    assert split[0].pred_boxes.tensor.device == CPU
