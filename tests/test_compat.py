"""The builds of Detectron2 as they are used: each test holds for all of them unless it says which."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
import warm
from PIL import Image

import fcos_d2
from fcos_d2 import _compat

ROOT = Path(fcos_d2.__file__).resolve().parent.parent


def run(code: str, *, script: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `code` in a Python of its own, from a file called `script` if one is given."""
    if script is not None:
        script.write_text(code)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code] if script is None else [sys.executable, str(script)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)


# Makes `import detectron2` fail as it does where Detectron2 is not installed.
WITHOUT_DETECTRON2 = """
import sys
from importlib.machinery import PathFinder

class Hidden(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] == "detectron2" else PathFinder.find_spec(name, path, target)

sys.meta_path[:] = [Hidden if finder is PathFinder else finder for finder in sys.meta_path]
"""


def test_without_detectron2_one_sentence_names_both_ways() -> None:
    done = run(f"{WITHOUT_DETECTRON2}\nimport fcos_d2")
    assert done.returncode == 1
    error = done.stderr.strip().splitlines()[-1]
    assert error.startswith("ImportError: fcos_d2 needs Detectron2, which is not installed")
    assert "uv sync --extra detectron2" in error
    assert "pip install --no-build-isolation 'git+https://github.com/facebookresearch/detectron2.git'" in error


def test_import_is_quiet_and_leaves_nothing_behind() -> None:
    """No warning, no stand-in for `_C` and no alias on PIL: what others see is what is installed."""
    done = run(
        "import fcos_d2, PIL.Image, sys\n"
        "c = sys.modules.get('detectron2._C')\n"
        "print(c is None or c.__file__ is not None)\n"
        "print(hasattr(PIL.Image, 'LINEAR'))\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.split() == ["True", str(int(PIL.__version__.partition(".")[0]) < 10)]


def test_flavour_is_known_without_importing_detectron2(tmp_path: Path) -> None:
    started = "sys.modules['fcos_d2_console'] = types.SimpleNamespace(started=True)"  # as the console script says it
    done = run(
        f"import sys, types\n{started}\n"
        "from fcos_d2 import _compat\nprint(_compat.DETECTRON2_FLAVOUR, 'torch' in sys.modules)",
        script=tmp_path / "script.py",
    )
    assert done.stdout.split() == [_compat.DETECTRON2_FLAVOUR, "False"], done.stderr
    assert _compat.DETECTRON2_FLAVOUR in ("pypi-0.6", "0.6", "main")


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'fcos_d2' has no attribute 'FCSO'"):
        _ = fcos_d2.FCSO


class TestCompiledOperations:
    """`detectron2._C`: real where it is built, one sentence where it is not."""

    def rotated_iou(self) -> torch.Tensor:
        from detectron2.structures import RotatedBoxes, pairwise_iou_rotated

        box = RotatedBoxes(torch.tensor([[8.0, 8.0, 4.0, 2.0, 0.0]]))
        return pairwise_iou_rotated(box, box)

    def roi_align_rotated(self) -> torch.Tensor:
        from detectron2.layers import ROIAlignRotated

        roi = torch.tensor([[0.0, 2.0, 2.0, 2.0, 2.0, 0.0]])
        return ROIAlignRotated((1, 1), 1.0, 1)(torch.ones(1, 1, 4, 4), roi).flatten(1)

    def nms_rotated(self) -> torch.Tensor:
        from detectron2.layers import batched_nms_rotated

        boxes = torch.tensor([[8.0, 8.0, 4.0, 2.0, 0.0]])
        return 1.0 + batched_nms_rotated(boxes, torch.ones(1), torch.zeros(1), 0.5)[None]

    @pytest.mark.parametrize(
        ("call", "operation"),
        [("rotated_iou", "box_iou_rotated"), ("roi_align_rotated", "roi_align_rotated_forward"), ("nms_rotated",) * 2],
    )
    def test_runs_or_says_what_is_missing(self, call: str, operation: str) -> None:
        if _compat.DETECTRON2_FLAVOUR != "pypi-0.6":
            assert getattr(self, call)().item() == pytest.approx(1.0)
            return
        with pytest.raises(ImportError) as error:
            getattr(self, call)()
        message = str(error.value)
        assert message.startswith(f"'{operation}' is a compiled operation of Detectron2, which this build (pypi-0.6)")
        assert "facebookresearch/detectron2.git" in message and "\n" not in message

    def test_deformable_convolution_needs_none_of_it_on_cpu(self) -> None:
        """Zero offsets make it a plain convolution."""
        from detectron2.layers import DeformConv

        layer = DeformConv(2, 3, 3, padding=1)
        x = torch.rand(1, 2, 5, 6)
        expected = torch.nn.functional.conv2d(x, layer.weight, padding=1)
        torch.testing.assert_close(layer(x, torch.zeros(1, 18, 5, 6)), expected)


def test_an_official_build_is_not_touched() -> None:
    if _compat.DETECTRON2_FLAVOUR == "pypi-0.6":
        pytest.skip("this Detectron2 is the build on PyPI")
    from detectron2 import _C
    from detectron2.evaluation import coco_evaluation
    from detectron2.layers import deform_conv, nms_rotated

    assert coco_evaluation.COCOeval_opt.__module__ == "detectron2.evaluation.fast_eval_api"
    assert nms_rotated.__module__ == "detectron2.layers.nms"
    assert deform_conv._C is _C


def test_coco_evaluator_gives_ap_one_for_the_ground_truth_itself(tmp_path: Path) -> None:
    """`use_fast_impl` stays at its default: that is the path which asks for `_C`."""
    import json

    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.data.datasets import register_coco_instances
    from detectron2.evaluation import COCOEvaluator
    from detectron2.structures import Boxes, Instances

    boxes = [[4.0, 4.0, 40.0, 30.0], [50.0, 20.0, 12.0, 60.0]]  # xywh
    annotations = [
        {"id": i, "image_id": 7, "category_id": 3, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for i, box in enumerate(boxes, 1)
    ]
    path = tmp_path / "gt.json"
    image = {"id": 7, "file_name": "7.png", "height": 96, "width": 96}
    path.write_text(
        json.dumps({"images": [image], "annotations": annotations, "categories": [{"id": 3, "name": "cell"}]})
    )
    register_coco_instances("compat_gt", {}, str(path), str(tmp_path))
    try:
        DatasetCatalog.get("compat_gt")
        evaluator = COCOEvaluator("compat_gt", tasks=("bbox",), distributed=False)
        evaluator.reset()
        found = Instances((96, 96))
        x, y, w, h = torch.tensor(boxes).unbind(1)
        found.pred_boxes = Boxes(torch.stack([x, y, x + w, y + h], dim=1))
        found.scores = torch.tensor([0.9, 0.8])
        found.pred_classes = torch.zeros(2, dtype=torch.int64)
        evaluator.process([{"image_id": 7}], [{"instances": found}])
        assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100.0)
    finally:
        DatasetCatalog.remove("compat_gt")
        MetadataCatalog.remove("compat_gt")


def test_table_of_instances_per_class_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """0.6 loses it in silence where NumPy has no `numpy.int`."""
    from detectron2.data.build import print_instances_class_histogram

    logger = logging.getLogger("detectron2.data.build")
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level("INFO", logger=logger.name):
            print_instances_class_histogram([{"annotations": [{"category_id": 1}] * 3}], ["cat", "dog"])
    finally:
        logger.removeHandler(caplog.handler)
    assert "dog" in caplog.text and "3" in caplog.text


def test_aliases_stay_out_of_numpy_itself() -> None:
    assert not hasattr(np, "int") and not hasattr(np, "float")


def test_resize_and_extent_transform_are_bilinear() -> None:
    """`ExtentTransform` is what needs `PIL.Image.LINEAR` in 0.6; halving a ramp shows that it interpolates."""
    from detectron2.data.transforms import ExtentTransform

    assert ExtentTransform((0, 0, 4, 4), (2, 2)).interp == Image.BILINEAR
    ramp = np.tile(np.arange(0, 80, 10, dtype=np.uint8), (8, 1))
    moved = ExtentTransform((0.5, 0, 7.5, 8), (8, 7)).apply_image(ramp)
    np.testing.assert_array_equal(moved[4], [5, 15, 25, 35, 45, 55, 65])


def test_local_process_group_with_gloo(tmp_path: Path) -> None:
    """Four processes as two machines of two: the local rank is the rank within the machine."""
    code = (
        "import torch.distributed as dist, torch.multiprocessing as mp\n"
        "from fcos_d2 import _compat\n"
        "from detectron2.utils import comm\n"
        "def work(rank, store, out):\n"
        "    dist.init_process_group('gloo', init_method=store, rank=rank, world_size=4)\n"
        "    _compat.create_local_process_group(2)\n"
        "    found = comm.all_gather((comm.get_rank(), comm.get_local_rank(), comm.get_local_size()))\n"
        "    if rank == 0: open(out, 'w').write(repr(found))\n"
        "    dist.barrier(); dist.destroy_process_group()\n"
        "if __name__ == '__main__':\n"
        f"    mp.start_processes(work, ('file://{tmp_path}/store', '{tmp_path}/out'), 4, start_method='fork')\n"
    )
    (tmp_path / "main.py").write_text(code)
    done = warm.run([sys.executable, tmp_path / "main.py"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").read_text() == "[(0, 0, 2), (1, 1, 2), (2, 0, 2), (3, 1, 2)]"
