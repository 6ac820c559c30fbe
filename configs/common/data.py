"""COCO 2017 through Detectron2's registry; `compose` adds the sizes of the schedule and the recipe's colour order."""

from detectron2.config import LazyCall as L
from detectron2.data import get_detection_dataset_dicts

from fcos_d2.data.loader import build_test_loader, build_train_loader
from fcos_d2.data.mapper import FastMapper
from fcos_d2.evaluation.coco import FastCOCOEvaluator

dataloader = dict(
    train=L(build_train_loader)(
        dataset=L(get_detection_dataset_dicts)(names="coco_2017_train"),
        mapper=L(FastMapper)(is_train=True, augmentations=[], image_format="BGR", use_instance_mask=False),
        total_batch_size=16,
        num_workers=4,
    ),
    test=L(build_test_loader)(
        dataset=L(get_detection_dataset_dicts)(names="coco_2017_val", filter_empty=False),
        mapper=L(FastMapper)(
            is_train=False,
            augmentations=[],
            image_format="${...train.mapper.image_format}",
        ),
        num_workers=4,
    ),
    evaluator=L(FastCOCOEvaluator)(dataset_name="${..test.dataset.names}"),
)
