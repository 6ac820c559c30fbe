"""What is suggested: the cheapest change that reaches the goal, as a config that says the same."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate

from fcos_d2.analysis import Rule, read_objects
from fcos_d2.analysis.changes import Change, Possible, apply, possible
from fcos_d2.analysis.report import analyze
from fcos_d2.analysis.rules import detector_rule, rule_of
from fcos_d2.analysis.search import alone, search
from fcos_d2.config import load_config
from fcos_d2.data import find_dataset
from fcos_d2.data.synthetic import generate
from fcos_d2.errors import FcosError
from fcos_d2.paths import config_root
from fcos_d2.train.own_data import lazy_config
from fcos_d2.zoo import get_config

ALL = Possible(finer=True, assigner=True, size=True)
SMALL = "fcos_R_18_slim_FPN_small"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Objects of 4 to 12 px in pictures of 480 x 480."""
    folder = tmp_path_factory.mktemp("data") / "tiny set"
    generate(folder, {"train": 20, "val": 4}, (480, 480), min_size=4, max_size=12 / 480, max_objects=12)
    return folder


def area(change: Change) -> float:
    """A price: locations of the finest level."""
    return (change.image_size or 320) ** 2 * (4 if change.finer else 1)


def test_a_change_of_a_rule() -> None:
    rule = Change(True, 480, 0.5, 0.0).of(Rule())
    assert rule.strides == (4, 8, 16, 32, 64, 128) and (rule.image_size, rule.max_size) == (480, 800)
    assert rule.size_ranges[:3] == ((-1.0, 16.0), (16.0, 32.0), (32.0, 64.0)) and rule.size_ranges[-1][1] == math.inf
    assert rule.center_radius == 0 and Change().of(Rule()) == Rule()
    assert len(Change(True, 480, 0.5, 0.0)) == 4 and len(Change()) == 0


def test_the_cheapest_that_is_enough(tiny: Path) -> None:
    objects = read_objects(find_dataset(tiny))["train"]
    before = objects.assign(Rule()).best_possible_recall
    found = search(objects, Rule(), area, ALL)
    after = objects.assign(found.change.of(Rule())).best_possible_recall
    assert before < 0.6 and after > 0.98 and found.goal == 0.99
    cheaper = [
        Change(finer, size)
        for finer in (False, True) for size in range(320, 1340, 80) if area(Change(finer, size)) < area(found.change)
    ]  # fmt: skip
    best = max(objects.assign(change.of(Rule())).best_possible_recall for change in cheaper)
    assert best < 0.99
    # A lower aim costs less; what is impossible is not suggested.
    assert area(search(objects, Rule(), area, ALL, 0.8).change) < area(found.change)
    assert not search(objects, Rule(), area, Possible(False, True, True)).change.finer
    assert search(objects, Rule(), area, Possible(False, False, False)).change == Change()


def test_where_the_aim_is_out_of_reach_the_cheapest_near_the_best(tiny: Path) -> None:
    objects, may = read_objects(find_dataset(tiny))["train"], Possible(True, False, True)
    found = search(objects, Rule(), area, may, 1.0)
    recall = {
        (finer, size): objects.assign(Change(finer, size).of(Rule())).best_possible_recall
        for finer in (False, True) for size in (None, 480, 640, 960, 1280)
    }  # fmt: skip
    reached = objects.assign(found.change.of(Rule())).best_possible_recall
    assert found.goal < found.target == 1.0 and reached >= max(recall.values()) - 0.001 - 1e-9
    assert area(found.change) <= min(area(Change(*key)) for key, value in recall.items() if value >= found.goal)


def test_nothing_is_suggested_where_nothing_is_needed(shared: Path) -> None:
    objects = read_objects(find_dataset(shared / "data" / "bccd"))["train"]
    assert search(objects, Rule(800, 1333), area, ALL, 0.9).change == Change()


def test_single_changes_are_single() -> None:
    assert [len(one) for one in alone(Rule(), ALL)] == [1] * 6
    assert alone(Rule(), Possible(False, False, False)) == []


@pytest.mark.parametrize(
    ("name", "finer"),
    [
        (SMALL, True), ("fcos_hrnet_w18_5l_2x", True), ("FCOS_MS_V_39_3x", True),
        ("FCOS_RT_MS_DLA_34_4x", True), ("fcos_syncbn_bs32_MNV2_FPN_1x", True), ("R_50_NAS", False),
        ("ResNet_50_6l_2x", False),
    ],
)  # fmt: skip
def test_a_finer_level_of_every_kind_of_network(name: str, finer: bool) -> None:
    """What a changed config assigns is what the change says, and its model has these levels."""
    cfg = get_config(name)
    assert possible(cfg) == Possible(finer, True, True)
    if not finer:
        return
    change = Change(True, 256, 2.0, 2.5)
    changed = apply(cfg, change, rule_of(cfg))
    assert rule_of(changed) == change.of(rule_of(cfg)) and rule_of(cfg) != rule_of(changed)
    model = instantiate(changed.model)
    assert model.strides[0] == 4 and len(model.strides) == len(rule_of(changed).strides)


def test_a_config_of_yaml_keys_lets_its_size_be_changed(tmp_path: Path) -> None:
    """Its rule is that of the model which is built from the keys."""
    text = (config_root() / "yaml" / "small" / f"{SMALL}.yaml").read_text(encoding="utf-8")
    path = tmp_path / "mine.yaml"
    text = text.replace("../", f"{config_root().as_posix()}/yaml/")
    path.write_text(f"{text}\nMODEL:\n  FCOS:\n    POS_RADIUS: 2.0\n", encoding="utf-8")
    cfg = lazy_config(str(path))
    assert possible(cfg) == Possible(False, False, True)
    assert detector_rule(cfg) == replace(detector_rule(get_config(SMALL)), center_radius=2.0)


@pytest.mark.parametrize("name", ["fcos_R_18_FPN_small", "fcos_resnet50_fpn", "fcos_hrnet_w18_6l_2x"])
def test_the_rule_of_a_config_is_that_of_its_parts(name: str) -> None:
    assert detector_rule(get_config(name)) == rule_of(get_config(name))


def test_other_rules_are_refused() -> None:
    cfg = get_config(SMALL)
    cfg.model.dense.grid.points_per_cell = 4
    with pytest.raises(FcosError, match="points_per_cell=4"):
        detector_rule(cfg)
    cfg.model = L(torch.nn.Identity)()
    with pytest.raises(FcosError, match="Identity assigns no locations to boxes"):
        detector_rule(cfg)


@pytest.mark.parametrize(("origin", "size"), [("variant", None), ("file", 240)])
def test_the_written_config_is_what_was_suggested(tiny: Path, tmp_path: Path, origin: str, size: int | None) -> None:
    layout, name = find_dataset(tiny), SMALL
    if origin == "file":
        name = str(tmp_path / "own config.py")
        Path(name).write_text((config_root() / "small" / f"{SMALL}.py").read_text(encoding="utf-8"), encoding="utf-8")
    found = analyze(read_objects(layout), lazy_config(name), size)
    assert found.rule.image_size == (size or 320)
    found.suggest(0.99)
    told = found.write_config(tmp_path / "suggested.py", name, layout, tiny)
    cfg = load_config(told["config"])
    assert rule_of(cfg) == found.after.rule and cfg.model.num_classes == 5
    assert cfg.dataloader.train.dataset.names == "tiny_set_train"
    assert instantiate(cfg.model).strides[0] == found.after.rule.strides[0]
    data = found.plain()["suggestion"]
    assert data["after"]["best_possible_recall"] > 0.98 > 0.6 > data["before"]["best_possible_recall"]
    assert data["after"]["gflops"] > data["before"]["gflops"] > 0
    assert data["left"]["between locations"] < 0.02 * len(found.parts["train"])
