from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog
from detectron2.data import transforms as T
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling.backbone.resnet import BasicStem, ResNet
from PIL import Image

from fcos_d2 import zoo
from fcos_d2.config.stored import dump_config, parse_config
from fcos_d2.data.synthetic import generate
from fcos_d2.errors import FcosError
from fcos_d2.modeling.backbone import resnet
from fcos_d2.modeling.norm import BATCH_NORMS
from fcos_d2.modeling.unfilled import unfilled
from fcos_d2.paths import config_root
from fcos_d2.train.own_data import (
    adapt,
    check_classes,
    check_images,
    holds_config,
    lazy_config,
    open_data,
)
from fcos_d2.train.presets import PRESETS
from fcos_d2.weights.write import save
from fcos_d2.zoo.recipes import RECIPES

SMALL = "fcos_R_18_FPN_small"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "my shapes"
    generate(folder, {"train": 6, "val": 3}, (96, 64), min_size=10, classes=("circle", "square", "star"))
    return folder


@pytest.fixture
def data(folder):
    return open_data(folder)


def configured(data, model=SMALL, **options):
    options = {"train_images": data.images["train"], **options}
    return adapt(zoo.get_config(model), data.names, data.class_names, **options)


def test_folder_tells_names_classes_and_counts(data, folder):
    assert data.class_names == ("circle", "square", "star")
    assert (data.names.train, data.names.val) == ("my_shapes_train", "my_shapes_val")
    assert data.images == {"train": 6, "val": 3}
    annotations = json.loads((folder / "train.json").read_text())["annotations"]
    assert data.boxes["train"] == sum(not box["iscrowd"] for box in annotations)


def test_opening_twice_is_the_same(folder, data):
    assert open_data(folder) == data


def test_two_folders_of_one_name_are_two_data_sets(folder, data, tmp_path):
    other = tmp_path / "my shapes"
    generate(other, {"train": 4, "val": 2}, (96, 64), min_size=10, classes=("circle", "square", "star"))
    second = open_data(other)
    assert (second.names.train, second.names.val) == ("my_shapes_2_train", "my_shapes_2_val")
    assert second.images == {"train": 4, "val": 2} and len(DatasetCatalog.get("my_shapes_2_train")) == 4
    assert open_data(other) == second and open_data(folder) == data


def test_class_count_is_set_once_and_reaches_the_head(data):
    cfg = configured(data)
    assert cfg.model.num_classes == 3
    assert instantiate(cfg.model).dense.head.cls_logits.out_channels == 3


def test_data_reaches_loader_and_evaluator(data):
    cfg = configured(data, batch_size=2, workers=0)
    assert cfg.dataloader.train.dataset.names == "my_shapes_train"
    assert cfg.dataloader.evaluator.dataset_name == "my_shapes_val"
    batch = next(iter(instantiate(cfg.dataloader.train)))
    assert len(batch) == 2 and {"image", "instances"} <= batch[0].keys()
    assert len(instantiate(cfg.dataloader.test)) == 3


def test_sizes_keep_the_aspect_ratio(data):
    cfg = configured(data, image_size=64)
    resize = cfg.dataloader.train.mapper.augmentations[0]
    assert set(resize.short_edge_length) == {40, 48, 56, 64, 72} and resize.max_size == 120
    tested = instantiate(cfg.dataloader.test.mapper.augmentations[0])
    assert tested.get_transform(torch.zeros(64, 96, 3).numpy()).new_h == 64


def test_sizes_of_a_published_variant_stay(data):
    before = zoo.get_config("fcos_imprv_R_50_FPN_1x").dataloader
    after = configured(data, "fcos_imprv_R_50_FPN_1x").dataloader
    for part in ("train", "test"):
        assert after[part].mapper.augmentations[0] == before[part].mapper.augmentations[0]


@pytest.mark.parametrize(
    ("options", "iterations"),
    [
        ({"iterations": 7}, 7),
        ({"epochs": 4, "batch_size": 3}, 8),
        ({"epochs": 0.1, "batch_size": 3}, 1),
        ({}, PRESETS["scratch"]["few"].least_iterations),
    ],
)
def test_length_of_training(data, options, iterations):
    cfg = configured(data, **options)
    assert cfg.train.max_iter == iterations
    assert 1 <= cfg.train.eval_period <= iterations and cfg.train.log_period >= 1


def test_scratch_decays_weights_only(data):
    cfg = configured(data)
    preset = PRESETS["scratch"]["few"]
    cfg.optimizer.params.model = instantiate(cfg.model)
    optimizer = instantiate(cfg.optimizer)
    assert isinstance(optimizer, torch.optim.AdamW)
    decays = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            decays.setdefault(parameter.dim() > 1, set()).add(group["weight_decay"])
    assert decays[True] == {preset.weight_decay} and 0.0 in decays[False]
    assert cfg.train.clip_grad == preset.clip_grad and tuple(cfg.model.pixel_std) == preset.pixel_std


def test_learning_rate_rises_and_falls(data):
    multiplier = instantiate(configured(data).lr_multiplier)
    warmup = PRESETS["scratch"]["few"].warmup
    values = [multiplier(where / 100) for where in range(100)]
    assert values[0] < 0.05 and values[-1] < 0.05
    assert values.index(max(values)) == pytest.approx(100 * warmup, abs=1) and max(values) > 0.9


def test_weights_to_start_from_choose_the_other_preset(data):
    cfg = configured(data, "fcos_imprv_R_50_FPN_1x")
    assert cfg.train.init_checkpoint.endswith("R-50.pkl")
    assert cfg.optimizer.lr == PRESETS["detector"]["few"].careful_lr and list(cfg.model.pixel_std) == [1.0, 1.0, 1.0]
    assert (cfg.model.backbone.bottom_up.norm, cfg.model.backbone.bottom_up.freeze_at) == ("FrozenBN", 2)


def test_frozen_network_from_scratch_is_thawed(data):
    cfg = configured(data, "fcos_imprv_R_50_FPN_1x", weights="")
    assert (cfg.model.backbone.bottom_up.norm, cfg.model.backbone.bottom_up.freeze_at) == ("BN", 0)
    assert cfg.optimizer.lr == PRESETS["scratch"]["few"].lr


THAWED = {(v.backbone, RECIPES[v.recipe].head.get("norm")): v for v in zoo.VARIANTS}.values()


def assert_all_learn(model):
    """No parameter is frozen, and no batch norm keeps statistics that nothing has learned."""
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == []
    assert [m for m in model.train().modules() if isinstance(m, FrozenBatchNorm2d)] == []
    assert [m for m in model.modules() if isinstance(m, BATCH_NORMS) and not m.training] == []


@pytest.mark.parametrize("variant", THAWED, ids=lambda v: v.full_name)
def test_nothing_random_stays_frozen(data, variant):
    cfg = configured(data, variant.full_name, weights="")
    with unfilled():
        assert_all_learn(instantiate(cfg.model))
    assert parse_config(dump_config(cfg), "it").model.keys() == cfg.model.keys()


@pytest.mark.parametrize("name", ["Mobile_NAS", "FCOS_RT_MS_R_50_4x", "fcos_hrnet_w18_5l_2x"])
def test_nothing_random_stays_frozen_by_yaml_keys(data, name, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"_BASE_: {config_root() / zoo.find(name).yaml}\nMODEL:\n  WEIGHTS: ''\n")
    cfg = adapt(lazy_config(str(path)), data.names, data.class_names, train_images=6, weights="")
    assert_all_learn(instantiate(cfg.model))


def test_defaults_and_other_projects_networks_are_thawed(data):
    """What a node leaves out has the default of what it calls; Detectron2's own stem and stages have norms, too."""
    cfg = zoo.get_config("fcos_imprv_R_50_FPN_1x")
    cfg.model.backbone.bottom_up = L(resnet)(depth=50, out_features=["res3", "res4", "res5"])
    stages = L(ResNet.make_default_stages)(depth=50, stride_in_1x1=True, norm="FrozenBN")
    stem = L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN")
    other = zoo.get_config("fcos_imprv_R_50_FPN_1x")
    features = ["res3", "res4", "res5"]
    other.model.backbone.bottom_up = L(ResNet)(stem=stem, stages=stages, out_features=features, freeze_at=2)
    for each in (cfg, other):
        adapt(each, data.names, data.class_names, train_images=6, weights="")
        with unfilled():
            assert_all_learn(instantiate(each.model))


def test_weights_keep_what_is_frozen(data):
    """Few images freeze more, many leave what the config says."""
    config = zoo.get_config("Mobile_NAS").model.backbone
    assert configured(data, "Mobile_NAS", train_images=5000).model.backbone.bottom_up == config.bottom_up
    few = configured(data, "Mobile_NAS").model.backbone
    assert few.in_features == config.in_features and few.bottom_up.freeze_at == PRESETS["detector"]["few"].freeze
    model = instantiate(configured(data, "fcos_R_18_slim_FPN_small", weights="a.pth").model)
    frozen = {name.split(".")[2] for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"stem", "res2"}


LSJ = "fcos_r18_fpn_gn-head-center-normbbox-centeronreg-giou_8xb8-amp-lsj-200e_coco"


def test_image_size_of_large_scale_jittering(data):
    cfg = configured(data, LSJ, image_size=96, batch_size=2, workers=0)
    scale, crop, _ = cfg.dataloader.train.mapper.augmentations
    assert (scale.target_height, scale.target_width, list(crop.crop_size)) == (96, 96, [96, 96])
    assert all(x["image"].shape[-2:] == (96, 96) for x in next(iter(instantiate(cfg.dataloader.train))))
    assert cfg.dataloader.test.mapper.augmentations[0].short_edge_length == 96


def test_image_size_of_other_augmentations(data):
    cfg = zoo.get_config(SMALL)
    inner = [L(T.Resize)(shape=[400, 600]), L(T.RandomCrop)(crop_type="absolute", crop_size=[200, 300])]
    relative = L(T.RandomCrop)(crop_type="relative", crop_size=[0.5, 0.5])
    first = L(T.RandomCrop)(crop_type="absolute", crop_size=[50, 60])  # of the image as it is
    steps = [first, L(T.AugmentationList)(augs=inner), L(T.RandomApply)(tfm_or_aug=L(T.Resize)(shape=800)), relative]
    cfg.dataloader.train.mapper.augmentations = steps
    adapt(cfg, data.names, data.class_names, train_images=6, image_size=100)
    first, both, applied, relative = cfg.dataloader.train.mapper.augmentations
    assert [list(x) for x in (first.crop_size, both.augs[0].shape, both.augs[1].crop_size)] == [
        [50, 60], [100, 150], [50, 75],
    ]  # fmt: skip
    assert applied.tfm_or_aug.shape == 100 and list(relative.crop_size) == [0.5, 0.5]


def test_image_size_that_nothing_sets(data):
    cfg = zoo.get_config(SMALL)
    cfg.dataloader.train.mapper.augmentations = [L(T.RandomFlip)()]
    adapt(copy.deepcopy(cfg), data.names, data.class_names, train_images=6)  # no size was asked for
    with pytest.raises(FcosError, match=r"size 64 cannot be set: dataloader\.train\.mapper\.augmentations has none"):
        adapt(cfg, data.names, data.class_names, train_images=6, image_size=64)


def test_larger_batches_learn_faster(data):
    assert configured(data, batch_size=32).optimizer.lr == pytest.approx(
        2 * configured(data, batch_size=8).optimizer.lr
    )


def test_config_can_be_stored(data):
    assert "my_shapes_train" in dump_config(configured(data))


@pytest.mark.parametrize("options", [{"iterations": 0}, {"batch_size": -1}, {"image_size": 8}])
def test_numbers_out_of_range(data, options):
    with pytest.raises(FcosError, match="must be at least"):
        configured(data, **options)


def test_config_without_a_node(data):
    cfg = zoo.get_config(SMALL)
    del cfg["optimizer"]
    with pytest.raises(FcosError, match="'optimizer'"):
        adapt(cfg, data.names, data.class_names, train_images=6)


# Configs and weights


def test_yaml_twin_stands_for_its_lazy_config():
    root = config_root()
    cfg = lazy_config(str(root / zoo.find(SMALL).yaml))
    assert cfg.model == zoo.get_config(SMALL).model


def test_other_yaml_is_translated(tmp_path):
    """Detectron2's yacs keys train as their LazyConfig does."""
    path = tmp_path / "mine.yaml"
    path.write_text("MODEL:\n  META_ARCHITECTURE: FCOS\n  FCOS:\n    NUM_CLASSES: 7\n")
    assert {"model", "dataloader", "optimizer", "lr_multiplier", "train"} <= lazy_config(str(path)).keys()


def test_classes_of_a_checkpoint(tmp_path):
    path = str(tmp_path / "a.pth")
    save(path, {"model": {"w": torch.zeros(1)}, "class_names": ["a", "b"], "config": "model: {}"})
    assert holds_config(path) and not holds_config("https://example.org/a.pth")
    check_classes(path, ("a", "b"), "the data", "do x")
    with pytest.raises(FcosError, match=r"for 2 classes \(a, b\), but the data has 3 \(a, b, c\); do x\."):
        check_classes(path, ("a", "b", "c"), "the data", "do x")
    with pytest.raises(FcosError, match="'a' where that has 'b'; do x"):
        check_classes(path, ("b", "a"), "the data", "do x")


# Images


def test_good_images_pass_and_are_counted(data):
    steps = []
    check_images(["my_shapes_train", "my_shapes_val"], lambda done, total: steps.append((done, total)))
    assert steps == [(i, 9) for i in range(1, 10)]


def test_every_unusable_image_is_named_with_its_fault(folder, tmp_path):
    bad = tmp_path / "bad"
    shutil.copytree(folder, bad)
    images = bad / "images"
    whole = (images / "train_000001.jpg").read_bytes()
    (images / "train_000001.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "train_000002.jpg").write_text("no image")
    Image.new("RGB", (64, 96)).save(images / "val_000000.jpg")
    names = open_data(bad).names
    with pytest.raises(FcosError, match="3 of 9 images") as info:
        check_images([names.train, names.val])
    text = str(info.value)
    assert "train_000001.jpg (" in text and "truncated" in text
    assert "train_000002.jpg (not an image)" in text
    assert "val_000000.jpg (has 64x96 pixels, the annotations say 96x64)" in text


def test_turned_images_have_the_size_they_are_trained_with(folder, tmp_path):
    turned = tmp_path / "turned"
    shutil.copytree(folder, turned)
    path = turned / "images" / "train_000000.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    check_images([open_data(turned).names.train])
