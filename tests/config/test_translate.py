"""yacs keys as a LazyConfig tree: twins train equally, and no key is dropped in silence."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg, instantiate
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.data.samplers import RandomSubsetTrainingSampler, RepeatFactorTrainingSampler
from detectron2.modeling import GeneralizedRCNN
from detectron2.solver import build_lr_scheduler, build_optimizer
from omegaconf import OmegaConf
from torch import nn

from fcos_d2.config.edits import class_node
from fcos_d2.config.load import load_config
from fcos_d2.config.overrides import apply_yacs, yacs_keys
from fcos_d2.config.stored import build, dump_config, parse_config
from fcos_d2.config.train_options import TrainOptions
from fcos_d2.config.translate import dataloader_of_yacs, lazy_of_yacs, optimizer_of_yacs, train_of_yacs
from fcos_d2.config.yacs import add_fcos_config
from fcos_d2.errors import FcosError
from fcos_d2.paths import config_root
from fcos_d2.train import LazyTrainer

YAML = config_root() / "yaml"
PIECES = ("recipes", "backbones", "schedules")
FILES = sorted(path.relative_to(YAML).as_posix() for path in YAML.glob("*/*.yaml") if path.parent.name not in PIECES)
SOME = FILES[::15]  # reading a LazyConfig takes a second
REST = [pytest.param(file, marks=pytest.mark.slow) for file in FILES if file not in SOME]


def weights(cfg):
    trainer = LazyTrainer(cfg, console=False)
    trainer.train()
    return trainer.model.state_dict()


@pytest.mark.slow
def test_twins_train_the_same_weights(small, yaml):
    """Bit by bit after 8 steps: the LazyConfig, its YAML twin, and the translation of that."""
    steps = ["SOLVER.MAX_ITER=8", "SOLVER.STEPS=(5,)", "SOLVER.WARMUP_ITERS=2"]
    same = ["lr_multiplier.scheduler.values=[1.0,0.1]", "lr_multiplier.scheduler.milestones=[5,8]"]
    lazy = weights(small("lazy", "train.max_iter=8", "train.eval_period=0", "lr_multiplier.warmup_length=0.25", *same))
    given = yaml("yacs", *steps)
    twins = [weights(given), weights(lazy_of_yacs(yaml("translated", *steps)))]
    start = LazyTrainer(given, console=False).model.state_dict()
    for twin in twins:
        assert twin.keys() == lazy.keys()
        assert [name for name in lazy if not torch.equal(twin[name], lazy[name])] == []
    assert not torch.equal(start["dense.head.cls_logits.weight"], lazy["dense.head.cls_logits.weight"])


def plain(node):
    return json.loads(json.dumps(OmegaConf.to_container(node, resolve=True), default=str))


@pytest.mark.parametrize("file", [*SOME, *REST])
def test_every_twin(file):
    """Data, optimizer and schedule of each YAML file are those of its LazyConfig."""
    ours = lazy_of_yacs(load_config(YAML / file))
    twin = load_config((config_root() / file).with_suffix(".py"))
    one, two = (node and node.num_classes for node in map(class_node, (ours.model, twin.model)))
    assert one == two  # None where a network only proposes
    assert ours.model.input_format == twin.model.get("input_format", "BGR")
    for part in ("train", "test"):
        ours_data, twin_data = plain(ours.dataloader[part]), plain(twin.dataloader[part])
        jitters = any("ResizeScale" in step["_target_"] for step in twin_data["mapper"]["augmentations"])
        if not jitters:  # which yacs has no key for
            for one, two in zip(
                ours_data["mapper"]["augmentations"], twin_data["mapper"]["augmentations"], strict=True
            ):
                defaults = {"sample_style": "choice", "vertical": False}
                assert one == {key: value for key, value in defaults.items() if key in one} | two
        assert ours_data["mapper"]["image_format"] == twin_data["mapper"]["image_format"]
        assert ours_data.get("total_batch_size") == twin_data.get("total_batch_size")
    one, two = plain(ours.optimizer), plain(twin.optimizer)
    two["params"].setdefault("weight_decay_bias", None)
    assert {k: v for k, v in one.items() if k != "nesterov"} == two and one["nesterov"] is False
    assert ours.train.max_iter == twin.train.max_iter and ours.train.init_checkpoint == twin.train.init_checkpoint
    ours_rate, twin_rate = (instantiate(cfg.lr_multiplier) for cfg in (ours, twin))
    at = [i / 1000 for i in range(1000)]
    assert [*map(ours_rate, at)] == pytest.approx([*map(twin_rate, at)], rel=1e-9)


def options(*overrides):
    cfg = get_cfg()
    add_fcos_config(cfg)
    return apply_yacs(cfg, ["MODEL.DEVICE=cpu", "MODEL.META_ARCHITECTURE=FCOS", *overrides])


# What has no effect by itself: it says how much of something that another key switches on, or Detectron2 reads it not.
SILENT = {
    "GLOBAL.HACK", "VERSION", "SOLVER.REFERENCE_WORLD_SIZE", "TEST.PRECISE_BN.NUM_ITER", "TEST.EXPECTED_RESULTS",
    "TEST.AUG.FLIP", "TEST.AUG.MAX_SIZE", "TEST.AUG.MIN_SIZES", "DATALOADER.RANDOM_SUBSET_RATIO",
    "SOLVER.BASE_LR_END", "SOLVER.NUM_DECAYS",  # of other schedules
}  # fmt: skip


def changed(value):
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if value is None:
        return 0.5
    if isinstance(value, (int, float)):
        return type(value)(value * 2 + 3)
    if isinstance(value, str):
        return {"horizontal": "vertical", "cpu": "cuda", "polygon": "bitmask", "": "highest"}.get(
            value, f"{value}_other"
        )
    return type(value)([*value, *(value[-1:] or (3,))])


def test_no_key_is_dropped():
    """Each key outside the model changes the tree, or is refused by a sentence that names it."""
    cfg = options(
        "SOLVER.CLIP_GRADIENTS.ENABLED=True", "INPUT.CROP.ENABLED=True", "DATASETS.TRAIN=('a',)",
        "MODEL.KEYPOINT_ON=True",
        "DATASETS.TEST=('b',)", "DATALOADER.SAMPLER_TRAIN=RepeatFactorTrainingSampler", "MODEL.LOAD_PROPOSALS=True",
        "SOLVER.STEPS=(10,20)",
    )  # fmt: skip
    from detectron2.data import MetadataCatalog

    for name in "ab":
        MetadataCatalog.get(name).set(keypoint_names=["x", "y"], keypoint_flip_map=[("x", "y")])
    try:
        before = plain(lazy_of_yacs(cfg))
        dropped = []
        for key in yacs_keys(cfg):
            if key in SILENT or (key.startswith("MODEL.") and key not in ("MODEL.DEVICE", "MODEL.WEIGHTS")):
                continue
            other = cfg.clone()
            node, name = other, key
            while "." in name:
                first, _, name = name.partition(".")
                node = node[first]
            node[name] = changed(node[name])
            if key == "DATASETS.TRAIN":
                node[name] = ("b",)
            refusal, after = "", before
            try:
                after = plain(lazy_of_yacs(other))
                TrainOptions.of(after["train"])
            except (FcosError, ValueError) as error:
                refusal = str(error)
            if after == before and name.lower() not in refusal.lower():
                dropped.append((key, refusal))
        assert dropped == []
    finally:
        for name in "ab":
            MetadataCatalog.remove(name)


def test_options_that_detectron2_has_no_key_for():
    """Each field of TrainOptions is a key: TRAIN.*, or Detectron2's."""
    cfg = options(
        "TRAIN.EMA.ENABLED=True", "TRAIN.EMA.DECAY=0.5", "TRAIN.GRAD_ACCUMULATION=4", "TRAIN.EARLY_STOP.PATIENCE=3",
        "TRAIN.GRADIENT_CHECKPOINTING=all", "TRAIN.INIT_CLASSES=drop", "TRAIN.CHANNELS_LAST=True",
        "TRAIN.AMP.DTYPE=bf16", "SOLVER.AMP.ENABLED=True", "TRAIN.CHECKPOINTER.MAX_TO_KEEP=2", "TRAIN.CLIP_GRAD=1.5",
        "SOLVER.CHECKPOINT_PERIOD=7", "TEST.EVAL_PERIOD=5", "SEED=9", "TRAIN.BEST_METRIC=bbox/AP50",
    )  # fmt: skip
    found = TrainOptions.of(train_of_yacs(cfg))
    assert found.ema.enabled and found.ema.decay == 0.5 and found.grad_accumulation == 4 and found.seed == 9
    assert found.early_stop.patience == 3 and found.gradient_checkpointing == "all" and found.init_classes == "drop"
    assert found.channels_last and found.amp.enabled and found.amp.dtype == "bf16" and found.clip_grad == 1.5
    assert found.checkpointer.period == 7 and found.checkpointer.max_to_keep == 2 and found.eval_period == 5
    with pytest.raises(FcosError, match=r"TRAIN\.EMA\.DECAI"):
        options("TRAIN.EMA.DECAI=0.5")


def test_limits_of_detections_have_a_key():
    evaluator = dataloader_of_yacs(options("TEST.MAX_DETS_PER_IMAGE=(1,10,300)")).evaluator
    assert list(evaluator.max_dets_per_image) == [1, 10, 300]
    assert "max_dets_per_image" not in dataloader_of_yacs(options()).evaluator


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["TEST.PRECISE_BN.ENABLED=True"], "TEST.PRECISE_BN.ENABLED is True"),
        (["TEST.AUG.ENABLED=True", "TEST.AUG.PRESET=x", "TEST.AUG.FLIP=False"], "TEST.AUG.FLIP"),
        (["SOLVER.LR_SCHEDULER_NAME=Poly"], "SOLVER.LR_SCHEDULER_NAME is 'Poly'"),
        (["DATALOADER.SAMPLER_TRAIN=Mine"], "DATALOADER.SAMPLER_TRAIN"),
        (["INPUT.RANDOM_FLIP=diagonal"], "INPUT.RANDOM_FLIP"),
        (["SOLVER.CLIP_GRADIENTS.ENABLED=True", "SOLVER.CLIP_GRADIENTS.CLIP_TYPE=x"], "CLIP_TYPE"),
    ],
)
def test_what_cannot_be_translated_is_one_sentence(overrides, words):
    with pytest.raises(ValueError, match=words.replace(".", r"\.")):
        lazy_of_yacs(options(*overrides))


def test_a_solver_key_of_another_project_is_named():
    cfg = options()
    cfg.SOLVER.OPTIMIZER = "ADAMW"
    with pytest.raises(FcosError, match=r"SOLVER\.OPTIMIZER is a key of another project"):
        lazy_of_yacs(cfg)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)

    def step(self, optimizer, scheduler, steps=8):
        for i in range(steps):
            optimizer.zero_grad()
            x = torch.linspace(-3, 5, 72).view(2, 1, 6, 6) * (i + 1)
            self.norm(self.conv(x)).square().mean().backward()
            optimizer.step()
            scheduler.step()
        return self.state_dict()


CLIP = "SOLVER.CLIP_GRADIENTS"
NORM = [f"{CLIP}.ENABLED=True", f"{CLIP}.CLIP_TYPE=norm", f"{CLIP}.CLIP_VALUE=0.0002"]
SOLVERS = {
    "plain": [],
    "value": [f"{CLIP}.ENABLED=True", f"{CLIP}.CLIP_VALUE=0.0001"],
    "norm": NORM,
    "norm 1": [*NORM, f"{CLIP}.NORM_TYPE=1.0"],
    "nesterov": ["SOLVER.NESTEROV=True", "SOLVER.MOMENTUM=0.7"],
    "biases": ["SOLVER.BIAS_LR_FACTOR=2.0", "SOLVER.WEIGHT_DECAY_BIAS=0.3", "SOLVER.WEIGHT_DECAY_NORM=0.2"],
    "decay": ["SOLVER.WEIGHT_DECAY=0.1"],
    "cosine": ["SOLVER.LR_SCHEDULER_NAME=WarmupCosineLR", "SOLVER.WARMUP_METHOD=constant", "SOLVER.WARMUP_FACTOR=0.3"],
    "steps": ["SOLVER.STEPS=(3,5,90000000)", "SOLVER.GAMMA=0.3", "SOLVER.WARMUP_ITERS=2"],
}


@pytest.mark.parametrize("name", SOLVERS)
def test_optimizer_and_schedule_are_detectron2s(name):
    """Equal weights after steps of the optimizer that Detectron2 builds of the same keys."""
    from detectron2.solver import LRMultiplier

    cfg = options("SOLVER.MAX_ITER=8", "SOLVER.BASE_LR=0.05", "SOLVER.STEPS=(6,)", *SOLVERS[name])
    theirs, ours = Net(), Net()
    optimizer = build_optimizer(cfg, theirs)
    expected = theirs.step(optimizer, build_lr_scheduler(cfg, optimizer))
    node = lazy_of_yacs(cfg)
    node.optimizer.params.model = ours
    optimizer = instantiate(node.optimizer)
    found = ours.step(optimizer, LRMultiplier(optimizer, instantiate(node.lr_multiplier), 8))
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    if name != "plain":
        plain_cfg = options("SOLVER.MAX_ITER=8", "SOLVER.BASE_LR=0.05", "SOLVER.STEPS=(6,)")
        model = Net()
        other = build_optimizer(plain_cfg, model)
        base = model.step(other, build_lr_scheduler(plain_cfg, other))
        assert not torch.equal(base["conv.weight"], expected["conv.weight"])


def test_the_norm_of_all_gradients_is_clipped_by_the_trainer():
    cfg = options(
        "SOLVER.CLIP_GRADIENTS.ENABLED=True", "SOLVER.CLIP_GRADIENTS.CLIP_TYPE=full_model",
        "SOLVER.CLIP_GRADIENTS.CLIP_VALUE=0.7",
    )  # fmt: skip
    assert train_of_yacs(cfg)["clip_grad"] == 0.7
    assert optimizer_of_yacs(cfg)["_target_"] is torch.optim.SGD


@pytest.mark.parametrize("train", [True, False])
def test_mapper_is_detectron2s(train):
    cfg = options(
        "INPUT.CROP.ENABLED=True", "INPUT.CROP.SIZE=[0.5,0.25]", "INPUT.RANDOM_FLIP=vertical", "MODEL.MASK_ON=True"
    )
    node = lazy_of_yacs(cfg).dataloader
    ours, theirs = instantiate(node.train.mapper if train else node.test.mapper), DatasetMapper(cfg, train)
    picture = np.random.default_rng(0).integers(0, 255, (120, 150, 3), dtype=np.uint8)
    seen = []
    for augmentations in (ours.augmentations, theirs.augmentations):
        np.random.seed(1)  # noqa: NPY002
        seen += [T.AugInput(picture.copy())]
        augmentations(seen[-1])
    assert np.array_equal(seen[0].image, seen[1].image)
    for name in (
        "image_format",
        "use_instance_mask",
        "instance_mask_format",
        "use_keypoint",
        "recompute_boxes",
        "is_train",
    ):
        assert getattr(ours, name) == getattr(theirs, name), name


@pytest.mark.parametrize("cls", [RepeatFactorTrainingSampler, RandomSubsetTrainingSampler])
def test_samplers(yaml, cls):
    cfg = yaml("out", f"DATALOADER.SAMPLER_TRAIN={cls.__name__}")
    cfg.DATALOADER.RANDOM_SUBSET_RATIO = 0.5  # which Detectron2 reads, but does not declare
    loader = LazyTrainer.build_train_loader(cfg)
    assert type(loader.sampler) is cls and loader.batch_size == 2


TWO_STAGES = [
    "MODEL.META_ARCHITECTURE=GeneralizedRCNN", "MODEL.PROPOSAL_GENERATOR.NAME=FCOSProposals",
    "MODEL.ROI_HEADS.NAME=StandardROIHeads", "MODEL.ROI_HEADS.IN_FEATURES=['p3','p4','p5']",
    "MODEL.ROI_HEADS.NUM_CLASSES=5",
    "MODEL.ROI_BOX_HEAD.NAME=FastRCNNConvFCHead", "MODEL.ROI_BOX_HEAD.NUM_FC=1", "MODEL.ROI_BOX_HEAD.FC_DIM=32",
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION=4",
]  # fmt: skip


def test_two_stages_train(yaml):
    """A model that no LazyConfig of ours describes: the node holds its keys as data, and survives a checkpoint."""
    cfg = yaml("two", *TWO_STAGES, "SOLVER.MAX_ITER=2", "TRAIN.EMA.ENABLED=True", "TRAIN.GRAD_ACCUMULATION=2")
    trainer = LazyTrainer(cfg, console=False)
    assert trainer.train()["bbox"].keys() >= {"AP"} and isinstance(trainer.model, GeneralizedRCNN)
    lazy = lazy_of_yacs(cfg)
    again = build(parse_config(dump_config(lazy), "a checkpoint").model)
    assert isinstance(again, GeneralizedRCNN) and again.state_dict().keys() == trainer.model.state_dict().keys()
    again.load_state_dict(trainer.model.state_dict())
    lazy.model.num_classes = 7  # of both parts, which had the same number
    other = instantiate(lazy.model)
    assert other.roi_heads.num_classes == 7 and other.proposal_generator.dense.head.num_classes == 7


def test_keys_of_a_stranger_are_checked(yaml):
    tree = json.loads(json.dumps(OmegaConf.to_container(lazy_of_yacs(yaml()).model, resolve=True), default=str))
    for key, value in (("NO_SUCH_KEY", 1), ("_BASE_", "/etc/passwd")):
        text = json.dumps(
            {"model": {**tree, "_target_": "fcos_d2.config.translate.model_from_keys", "keys": {key: value}}}
        )
        with pytest.raises(FcosError):
            build(parse_config(text, "a checkpoint").model)
    assert isinstance(CfgNode(tree["keys"]), CfgNode)
