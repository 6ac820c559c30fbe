"""A project's subclass of Detectron2's `DefaultTrainer` runs when its base is `LazyTrainer`, with either config."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, build_detection_test_loader, build_detection_train_loader
from detectron2.data import transforms as T
from detectron2.engine import DefaultTrainer, HookBase, hooks
from detectron2.evaluation import COCOEvaluator, DatasetEvaluators
from detectron2.solver import build_lr_scheduler, build_optimizer
from detectron2.utils.events import EventWriter

from fcos_d2.errors import FcosError
from fcos_d2.train import LazyTrainer
from fcos_d2.weights.read import read


class Remember(EventWriter):
    def __init__(self):
        self.losses = []

    def write(self, **kwargs):
        self.losses.append(float(self.storage().history("total_loss").latest()))

    @staticmethod
    def storage():
        from detectron2.utils.events import get_event_storage

        return get_event_storage()


class Count(HookBase):
    def __init__(self):
        self.steps = 0

    def before_train(self):
        assert self.trainer.cfg is not None and self.trainer.optimizer is not None

    def after_step(self):
        self.steps += 1


def names_of(cfg):
    if isinstance(cfg, CfgNode):
        return cfg.DATASETS.TRAIN[0], cfg.DATASETS.TEST[0], cfg.OUTPUT_DIR
    data = cfg.dataloader
    return data.train.dataset.names, data.test.dataset.names, cfg.train.output_dir


def mapper(train):
    return DatasetMapper(is_train=train, augmentations=[T.Resize((64, 64))], image_format="BGR")


def trainer_of(base):
    """What one finds in projects of Detectron2: tools/train_net.py, with a mapper, a hook, and a test of its own."""

    class Trainer(base):
        tested = 0

        @classmethod
        def build_train_loader(cls, cfg):
            if isinstance(cfg, CfgNode):
                return build_detection_train_loader(cfg, mapper=mapper(True))
            from detectron2.data import get_detection_dataset_dicts

            records = get_detection_dataset_dicts(names_of(cfg)[0])
            return build_detection_train_loader(records, mapper=mapper(True), total_batch_size=2)

        @classmethod
        def build_test_loader(cls, cfg, dataset_name):
            if isinstance(cfg, CfgNode):
                return build_detection_test_loader(cfg, dataset_name, mapper=mapper(False))
            return super().build_test_loader(cfg, dataset_name)

        @classmethod
        def build_evaluator(cls, cfg, dataset_name, output_folder=None):
            folder = output_folder or str(Path(names_of(cfg)[2]) / "inference")
            return DatasetEvaluators([COCOEvaluator(dataset_name, output_dir=folder)])

        @classmethod
        def build_optimizer(cls, cfg, model):
            if isinstance(cfg, CfgNode):
                return build_optimizer(cfg, model)
            return super().build_optimizer(cfg, model)

        @classmethod
        def build_lr_scheduler(cls, cfg, optimizer):
            if isinstance(cfg, CfgNode):
                return build_lr_scheduler(cfg, optimizer)
            return super().build_lr_scheduler(cfg, optimizer)

        @classmethod
        def test(cls, cfg, model, evaluators=None):
            Trainer.tested += 1
            return super().test(cfg, model, evaluators)

        def build_hooks(self):
            built = super().build_hooks()
            built.insert(-1, hooks.BestCheckpointer(2, self.checkpointer, "bbox/AP50", file_prefix="model_best_50"))
            return built

        def build_writers(self):
            self.remember = Remember()
            return [*super().build_writers(), self.remember]

    return Trainer


@pytest.fixture
def cfgs(small, yaml):
    return {
        "yacs": yaml("moved", "SOLVER.MAX_ITER=4", "TEST.EVAL_PERIOD=2"),
        "lazy": small("moved", "train.max_iter=4"),
    }


@pytest.mark.parametrize("kind", ["yacs", "lazy"])
def test_a_subclass_of_default_trainer_moves_by_changing_its_base(cfgs, kind):
    cfg = cfgs[kind]
    Trainer = trainer_of(LazyTrainer)
    trainer = Trainer(cfg)
    assert trainer.cfg is cfg
    trainer.resume_or_load(resume=False)
    count = Count()
    trainer.register_hooks([count])
    trainer.train()
    assert count.steps == 4 and len(trainer.remember.losses) >= 1
    assert trainer.tested == (2 if kind == "yacs" else 1)
    assert trainer.test()["bbox"].keys() >= {"AP", "AP50"} and trainer.test().keys() == trainer.results.keys()
    folder = Path(names_of(cfg)[2])
    assert (folder / "inference" / "coco_instances_results.json").is_file()

    model = Trainer.build_model(cfg)
    model.load_state_dict(trainer.model.state_dict())
    evaluator = COCOEvaluator(names_of(cfg)[1], output_dir=str(folder))
    assert str(Trainer.test(cfg, model, [evaluator])) == str(trainer.results)
    with pytest.raises((ValueError, AssertionError), match="2"):
        Trainer.test(cfg, model, [evaluator, evaluator])

    again = Trainer(cfg)
    again.resume_or_load(resume=True)
    assert again.start_iter == 4
    state = read(folder / "model_final.pth").tensors
    assert all(torch.equal(value.cpu(), state[name]) for name, value in again.model.state_dict().items())


def test_the_same_class_is_detectron2s(cfgs):
    """The subclass itself is what `DefaultTrainer` takes."""
    cfg = cfgs["yacs"]
    trainer = trainer_of(DefaultTrainer)(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert trainer.iter == 4


def test_their_scheduler_resumes(small, yaml):
    """A scheduler of PyTorch's, from Detectron2's own function: the learning rate goes on as without the break."""

    class Trainer(LazyTrainer):
        @classmethod
        def build_lr_scheduler(cls, cfg, optimizer):
            return build_lr_scheduler(cfg, optimizer)

    def weights(output, *lengths):
        for length in lengths:
            cfg = yaml(output, "SOLVER.MAX_ITER=6", "SOLVER.STEPS=(3,)", "SOLVER.WARMUP_ITERS=5", "SEED=3")
            trainer = Trainer(cfg, resume=length != lengths[0], console=False)
            if length < 6:
                trainer.register_hooks([Stop(length)])
            trainer.train()
        return trainer.model.state_dict()

    whole, parts = weights("whole", 6), weights("parts", 4, 6)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


class Stop(HookBase):
    """Ends a training like Ctrl-C, silently."""

    def __init__(self, length):
        self.length = length

    def after_step(self):
        if self.trainer.iter + 1 == self.length:
            self.trainer.save(f"model_{self.trainer.iter:07d}")
            self.trainer.max_iter = self.length  # as if that were all


def test_several_test_sets_are_evaluated_one_by_one(yaml, data):
    """As `DefaultTrainer.test` does; the first decides what is best."""
    cfg = yaml("sets", "SOLVER.MAX_ITER=1", f"DATASETS.TEST=('{data.val}','{data.train}')")
    trainer = LazyTrainer(cfg, console=False)
    results = trainer.train()
    assert list(results) == [data.val, data.train] and results[data.train]["bbox"].keys() >= {"AP"}
    best = torch.load(Path(trainer.output_dir) / "model_best.pth", weights_only=True)["metrics"]
    assert list(best) == ["bbox/AP"]


@pytest.mark.parametrize("kind", ["yacs", "lazy"])
def test_predictions_go_to_the_folder_that_is_given(cfgs, tmp_path, kind):
    """Those of a yacs config's evaluator, and of one that refers to train.output_dir."""
    cfg = cfgs[kind]
    if kind == "lazy":
        cfg.dataloader.evaluator.output_dir = "${train.output_dir}/inference"
    trainer = LazyTrainer(cfg, console=False, folder=str(tmp_path / "here"))
    trainer.test()
    assert (tmp_path / "here" / "inference" / "coco_instances_results.json").is_file()
    assert not (tmp_path / "moved").exists() and trainer.cfg is cfg and names_of(cfg)[2] == str(tmp_path / "moved")


def test_wrong_keys_are_named(yaml):
    for key, words in (
        ("MODEL.FCOS.NUM_CLASSES=3", r"pass MODEL\.FCOS\.NUM_CLASSES 5"),
        ("TEST.PRECISE_BN.ENABLED=True", "PRECISE_BN"),
    ):
        with pytest.raises(FcosError, match=words):
            LazyTrainer(yaml("wrong", key), console=False)
