"""Published checkpoints are converted while they are loaded, and hostile ones are refused by name."""

from __future__ import annotations

import os
import pickle

import pytest
import torch
import torchvision
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone

from fcos_d2 import importers, zoo
from fcos_d2.config.compose import compose
from fcos_d2.errors import FcosError
from fcos_d2.predict import Predictor
from fcos_d2.weights.fit import Policy, fit, load_model
from fcos_d2.weights.read import weights_of

NAME = "FCOS_RT_MS_DLA_34_4x_shtw"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Our weights of a small variant, and a file with the same as AdelaiDet publishes them."""
    torch.manual_seed(0)
    model = instantiate(zoo.get_config(NAME).model)
    path = tmp_path_factory.mktemp("published") / "FCOS_RT_MS_DLA_34_4x_shtw.pth"
    torch.save(importers.export(model.state_dict(), "adelaidet", config=NAME), path)
    return model.state_dict(), path


def test_predictor_converts_on_the_fly(published):
    ours, path = published
    assert any(name.startswith("proposal_generator.") for name in torch.load(path, weights_only=True))
    predictor = Predictor(NAME, weights=str(path), device="cpu")
    loaded = predictor.model.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in ours.items())


def test_another_number_of_classes_is_an_error_or_starts_the_class_layer_anew(published):
    ours, path = published
    cfg = zoo.get_config(NAME).model
    cfg.num_classes = 3
    model = instantiate(cfg)
    before = model.dense.head.cls_logits.weight.clone()
    with pytest.raises(FcosError, match="80 classes, but the model has 3"):
        load_model(model, str(path))
    load_model(model, str(path), classes="drop")
    assert torch.equal(model.dense.head.cls_logits.weight, before)
    assert torch.equal(model.dense.head.bbox_pred.weight, ours["dense.head.bbox_pred.weight"])


@pytest.mark.parametrize(
    ("network", "name", "ours", "theirs"),
    [
        ("mobilenet_v2", "fcos_bn_bs16_MNV2_FPN_1x", "features.0.0.weight", "features.0.0.weight"),
        ("resnet50", "fcos_resnet50_fpn", "res3.0.conv1.weight", "layer2.0.conv1.weight"),
    ],
)
def test_imagenet_weights_of_torchvision_start_a_backbone(network, name, ours, theirs, tmp_path):
    weights = getattr(torchvision.models, network)(weights=None).state_dict()
    torch.save(weights, tmp_path / "imagenet.pth")
    model = instantiate(zoo.get_config(name).model)
    load_model(model, str(tmp_path / "imagenet.pth"), allow_backbone=True)
    assert torch.equal(model.state_dict()[f"backbone.bottom_up.{ours}"], weights[theirs])
    with pytest.raises(FcosError, match=r"imagenet\.pth"):
        load_model(model, str(tmp_path / "imagenet.pth"))


class _Bomb:
    def __reduce__(self):
        return os.system, ("exit 1",)


class _Own:
    pass


@pytest.mark.parametrize(("thing", "name"), [(_Bomb(), "posix.system"), (_Own, "_Own")])
def test_a_file_that_would_run_code_is_refused_by_name(thing, name, tmp_path):
    torch.save({"model": {}, "extra": thing}, tmp_path / "bad.pth", pickle_module=__import__("cloudpickle"))
    model = torch.nn.Linear(1, 1)
    with pytest.raises(FcosError, match=rf"bad\.pth holds the object '[\w.]*{name}', which could run code"):
        load_model(model, str(tmp_path / "bad.pth"))


# Backbones


def resnet50(path):
    """torchvision's ResNet-50 with random weights, as a file; and the weights."""
    weights = torchvision.models.resnet50(weights=None).state_dict()
    torch.save(weights, path)
    return weights


DEFORMABLE = "fcos/fcos_imprv_dcnv2_R_50_FPN_1x"


@pytest.mark.parametrize("kind", ["pth", pytest.param("pkl", marks=pytest.mark.slow)])
def test_deformable_backbones_start_from_plain_ones(kind, tmp_path):
    """Only the convolutions of the offsets are new; they keep the values that the model gave them."""
    cfg = zoo.get_config(DEFORMABLE).model
    cfg.backbone.bottom_up.stride_in_1x1 = kind != "pth"
    model = instantiate(cfg)
    bottom_up = model.backbone.bottom_up.state_dict()
    if kind == "pth":
        weights = resnet50(tmp_path / "x.pth")
    else:
        weights = {n: torch.rand(t.shape) for n, t in bottom_up.items() if ".offset." not in n}
        arrays = {n: t.numpy() for n, t in weights.items()}
        stream = pickle.dumps({"model": arrays, "__author__": "somebody", "matching_heuristics": True})
        (tmp_path / "x.pkl").write_bytes(stream)
    before = {n: t.clone() for n, t in bottom_up.items()}

    report = load_model(model, str(tmp_path / f"x.{kind}"), allow_backbone=True)

    offsets = [name for name in before if ".offset." in name]
    assert len(offsets) == 26
    assert [n for n in report.initial if n.startswith("backbone.bottom_up.")] == [
        f"backbone.bottom_up.{n}" for n in offsets
    ]
    assert "offsets of deformable convolutions start at their initial values" in str(report)
    after = model.backbone.bottom_up.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in offsets)
    theirs = "layer4.2.conv2.weight" if kind == "pth" else "res5.2.conv2.weight"
    assert torch.equal(after["res5.2.conv2.weight"], weights[theirs])


def test_a_part_of_a_backbone_is_refused(tmp_path):
    """Detectron2's matching of names fills what it finds: 25 of 120 tensors, and the rest stays random."""
    model = instantiate(zoo.get_config("fcos/fcos_R_50_FPN_1x").model)
    state = model.state_dict()
    part = {
        n.removeprefix("backbone.bottom_up."): t.numpy() + 1 for n, t in state.items() if ".stem." in n or ".res2." in n
    }
    stream = pickle.dumps({"model": part, "__author__": "somebody", "matching_heuristics": True})
    (tmp_path / "part.pkl").write_bytes(stream)
    before = {n: t.clone() for n, t in state.items()}

    with pytest.raises(
        FcosError, match=r"part\.pkl does not suit the backbone of the model: 210 missing \(backbone.*res3"
    ):
        load_model(model, str(tmp_path / "part.pkl"), allow_backbone=True)

    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


class Outside(Backbone):
    """Somebody else's network."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, stride=8, padding=1)
        self.norm = torch.nn.BatchNorm2d(8)

    def forward(self, images):
        return {"p": self.norm(self.first(images))}

    def output_shape(self):
        return {"p": ShapeSpec(channels=8, stride=8)}


def outside():
    config = compose(recipe="improved", backbone="R_18_slim_FPN", schedule="1x").model
    model = instantiate(config)
    model.backbone.bottom_up = Outside()
    return model


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: x,
        lambda x: {"model": {f"module.{n}": t for n, t in x.items()}},
        lambda x: {f"backbone.{n}": t for n, t in x.items()},
        lambda x: {f"backbone.bottom_up.{n}": t for n, t in x.items()},
        lambda x: {"state_dict": {**x, "fc.weight": torch.zeros(2, 8)}},
        lambda x: {n: t for n, t in x.items() if not n.endswith("num_batches_tracked")},
    ],
    ids=["bare", "module.", "backbone.", "backbone.bottom_up.", "classifier", "no counter"],
)
def test_an_unknown_backbone_goes_by_its_own_names(wrap):
    model, weights = outside(), Outside().state_dict()
    report = fit(model, weights_of(wrap(weights), "F"), Policy(allow_backbone=True))
    assert all(torch.equal(t, weights[n]) for n, t in model.backbone.bottom_up.state_dict().items())
    assert not any(name.startswith("backbone.bottom_up.") for name in report.initial if "tracked" not in name)
    with pytest.raises(FcosError, match=r"F (holds no|was made)"):
        fit(model, weights_of(wrap(weights), "F"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x: {n: t for n, t in x.items() if n != "norm.bias"}, r"1 missing \(backbone\.bottom_up\.norm\.bias\)"),
        (lambda x: {**x, "second.weight": torch.zeros(1)}, r"1 left over \(backbone\.bottom_up\.second\.weight\)"),
        (lambda x: {**x, "first.weight": torch.zeros(8, 3, 1, 1)}, r"1 of another shape \(backbone\.bottom_up\.first"),
        (
            lambda x: {f"x.{n}": t for n, t in x.items()},
            r"'x\.first\.weight', and the first of the model's backbone 'back",
        ),
        (lambda x: torchvision.models.resnet18(weights=None).state_dict(), "does not suit the backbone of the model"),
    ],
    ids=["missing", "left over", "shape", "other names", "another network"],
)
def test_an_unknown_backbone_that_does_not_suit_is_refused(change, sentence):
    model = outside()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    with pytest.raises(FcosError, match=sentence) as error:
        fit(model, weights_of(change(Outside().state_dict()), "F"), Policy(allow_backbone=True))
    assert "\n" not in str(error.value)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


# Wrappers


WRAPPERS = {
    "model": lambda x: {"model": x, "optimizer": {}},
    "state_dict": lambda x: {"state_dict": x, "meta": {}},
    "model_state_dict": lambda x: {"model_state_dict": x, "epoch": 3},
    "nested": lambda x: {"model": {"state_dict": x}},
    "bare": lambda x: x,
    "module.": lambda x: {"model": {f"module.{n}": t for n, t in x.items()}},
    "_orig_mod.": lambda x: {f"_orig_mod.{n}": t for n, t in x.items()},
    "_orig_mod. inside": lambda x: {n.replace("backbone.", "backbone._orig_mod."): t for n, t in x.items()},
    "Lightning": lambda x: {"state_dict": {f"model.{n}": t for n, t in x.items()}, "pytorch-lightning_version": "2"},
    "ema": lambda x: {"model": negative(x), "ema": x},
    "ema alone": lambda x: {"ema": x},
    "ema of a module": lambda x: {"model": negative(x), "ema": {"module": x, "updates": 3}},
    "shadow": lambda x: {"model": negative(x), "ema": {"decay": 0.9, "shadow": x}},
    "ema of parameters only": lambda x: {
        "model": negative(x, keep="running"),
        "ema": {n: t for n, t in x.items() if "running" not in n},
    },
    "ema_state_dict": lambda x: {
        "model": negative(x),
        "ema_state_dict": {"n_averaged": torch.tensor(3), **{f"module.{n}": t for n, t in x.items()}},
    },
    "mmengine's, exchanged": lambda x: {
        "state_dict": x,
        "ema_state_dict": {"steps": torch.tensor(3), **{f"module.{n}": t for n, t in negative(x).items()}},
    },
}


def negative(weights, keep="-"):
    return {n: t if keep in n else -t for n, t in weights.items()}


# Another project's weights in one wrapper of each kind, ours in some others; the rest are like one of these.
FOREIGN = ("model", "bare", "_orig_mod. inside", "ema of parameters only", "mmengine's, exchanged")
OURS = ("nested", "Lightning", "ema of a module", "ema_state_dict")
WRAPPED = [
    *(
        pytest.param(name, False, id=f"{name}-ours", marks=() if name in OURS else pytest.mark.slow)
        for name in WRAPPERS
    ),
    *(
        pytest.param(name, True, id=f"{name}-adelaidet", marks=() if name in FOREIGN else pytest.mark.slow)
        for name in WRAPPERS
    ),
]


@pytest.mark.parametrize(("name", "foreign"), WRAPPED)
def test_wrappers_work_everywhere_alike(name, foreign, published, tmp_path):
    ours, path = published
    weights = torch.load(path, weights_only=True) if foreign else dict(ours)
    weights = {n: t for n, t in weights.items() if not n.endswith("num_batches_tracked")}
    file = tmp_path / "x.pth"
    torch.save(WRAPPERS[name](weights), file)

    imported = importers.load(file, config=NAME).state_dict
    importers.convert(file, tmp_path / "converted.pth", config=NAME)
    converted = torch.load(tmp_path / "converted.pth", weights_only=True)["model"]
    loaded = Predictor(NAME, weights=str(file), device="cpu").model.state_dict()

    for found in (imported, converted, loaded):
        for key, tensor in ours.items():
            assert key.endswith("num_batches_tracked") or torch.equal(found[key], tensor), key


def test_averages_are_left_when_they_are_not_wanted(published):
    ours, _ = published
    model = instantiate(zoo.get_config(NAME).model)
    weights = weights_of({"model": dict(ours), "ema": negative(ours)}, "F")
    assert "averaged" not in str(fit(model, weights, Policy(averaged=False)))
    assert all(torch.equal(t, ours[n]) for n, t in model.state_dict().items())
    assert "the averaged weights (ema)" in str(fit(model, weights))
    name = "dense.head.bbox_pred.weight"
    assert torch.equal(model.state_dict()[name], -ours[name])


def test_the_report_is_logged_whoever_loads(published, tmp_path, caplog):
    ours, path = published
    caplog.set_level("INFO", logger="fcos_d2")
    load_model(instantiate(zoo.get_config(NAME).model), str(path))
    assert "x.pth: fcos_d2" not in caplog.text and "shtw.pth: adelaidet" in caplog.text
    torch.save({"model": dict(ours), "class_names": ["a"]}, tmp_path / "x.pth")
    report = load_model(instantiate(zoo.get_config(NAME).model), str(tmp_path / "x.pth"))
    assert "x.pth: fcos_d2" in caplog.text and report.class_names == ("a",)


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64])
def test_numbers_of_another_kind_are_refused(dtype, published):
    ours, _ = published
    model = instantiate(zoo.get_config(NAME).model)
    bad = {**ours, "dense.head.scales": torch.ones(3).to(dtype)}
    with pytest.raises(
        FcosError, match=r"F holds torch\.\w+64 at dense\.head\.scales, where the model has torch\.float32"
    ):
        fit(model, weights_of(bad, "F"))
    with pytest.raises(FcosError, match="classes is 'all'; it must be one of: check, match, drop, keep"):
        Policy(classes="all")
