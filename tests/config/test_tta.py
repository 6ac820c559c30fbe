"""Test-time augmentation in configs: Detectron2's keys and ours, the node `tta`, presets, and what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from detectron2.config import CfgNode, get_cfg
from omegaconf import OmegaConf

from fcos_d2 import add_fcos_config, zoo
from fcos_d2.config import load_config
from fcos_d2.config.overrides import apply_yacs
from fcos_d2.config.stored import dump_config, parse_config
from fcos_d2.config.translate import lazy_of_yacs
from fcos_d2.config.tta import TTA_DEFAULTS, tta_from, tta_of
from fcos_d2.errors import FcosError
from fcos_d2.options import keyed_fields
from fcos_d2.zoo.tta import PRESETS, TTA

SLIM = "fcos_R_18_slim_FPN_small"


def keys(*overrides: str) -> CfgNode:
    add_fcos_config(cfg := get_cfg())
    return apply_yacs(cfg, [f"TEST.AUG.{text}" for text in overrides])


def test_detectron2s_keys_mean_what_they_meant() -> None:
    """Enabled as they are: its sizes and mirror images, one suppression; without IDENTITY, exactly its views."""
    assert tta_of(keys()) is None and tta_of(get_cfg()) is None
    found = tta_of(keys("ENABLED=True"))
    assert found == TTA(sizes=(400, 500, 600, 700, 800, 900, 1000, 1100, 1200), max_size=4000, flip=True)
    assert tta_of(keys("ENABLED=True", "IDENTITY=False")) == PRESETS["detectron2"].tta
    plain = get_cfg()
    plain.TEST.AUG.ENABLED = True  # without our keys
    assert tta_of(plain) == found


def test_every_field_has_a_key() -> None:
    assert {field.name for field in keyed_fields(TTA).values()} == set(TTA_DEFAULTS) - {"preset"}
    found = tta_of(keys(
        "ENABLED=True", "MIN_SIZES=(300,)", "SCALES=(2.0,)", "MAX_SIZES=(500,600)", "FLIP=False",
        "SCALE_RANGES=((0,96),(64,1000))", "MERGE_TYPE=vote", "VOTE_TH=0.5", "SOFT_TH=0.1", "BATCH_SIZE=4",
    ))  # fmt: skip
    assert found == TTA(
        sizes=(300,), scales=(2.0,), max_sizes=(500, 600), ranges=((0, 96), (64, 1000)), merge="vote",
        vote_threshold=0.5, soft_threshold=0.1, batch_size=4,
    )  # fmt: skip


def test_presets_have_a_key() -> None:
    for name, preset in PRESETS.items():
        assert tta_of(keys("ENABLED=True", f"PRESET={name}")) == preset.tta
    with pytest.raises(FcosError, match=r"TEST\.AUG\.PRESET is 'flip', which .* TEST\.AUG\.MAX_SIZE has no effect"):
        tta_of(keys("ENABLED=True", "PRESET=flip", "MAX_SIZE=1000"))
    with pytest.raises(FcosError, match=r"no preset 'flipp' .* none, flip, multiscale"):
        tta_of(keys("ENABLED=True", "PRESET=flipp"))


def test_a_node_of_a_lazy_config(tmp_path: Path) -> None:
    text = zoo.config_file(SLIM).read_text() + "\n"
    file = tmp_path / "mine.py"
    file.write_text(text + "tta = dict(scales=[0.5, 2], flip=True)\n")
    assert tta_of(load_config(file)) == TTA(scales=(0.5, 2), flip=True)
    assert tta_of(load_config(file, ["tta.flip=false", "tta.merge=vote"])) == TTA(scales=(0.5, 2), merge="vote")
    stored = parse_config(dump_config(load_config(file)), "a checkpoint")
    assert tta_of(stored) == TTA(scales=(0.5, 2), flip=True)
    for wrong, words in (
        ("tta.flipp=true", "did you mean 'tta.flip'"), ("tta.merge=mean", "tta.merge is 'mean'"),
        ("tta.preset=flip", "tta.preset is 'flip', which is taken as it is, so tta.scales"),
    ):  # fmt: skip
        with pytest.raises(FcosError, match=words):
            load_config(file, [wrong])
    file.write_text(f"{text}tta = dict(preset='atss')\n")
    assert tta_of(load_config(file)) == PRESETS["atss"].tta
    assert tta_of(load_config(file, ["tta.preset=flip"])) == PRESETS["flip"].tta
    file.write_text(f"{text}tta = dict(scale=[2])\n")
    with pytest.raises(FcosError, match=r"unknown key tta\.scale; did you mean 'scales'"):
        load_config(file)
    assert tta_of(zoo.get_config(SLIM)) is None


def test_keys_become_a_node() -> None:
    """So a YAML config is evaluated with what it says; a disabled one has no such node."""
    cfg = keys("ENABLED=True", "SCALES=(2.0,)")
    cfg.MODEL.META_ARCHITECTURE = "FCOS"
    assert tta_of(lazy_of_yacs(cfg)) == tta_of(cfg)
    cfg.TEST.AUG.ENABLED = False
    assert list(lazy_of_yacs(cfg)) == ["model", "dataloader", "optimizer", "lr_multiplier", "train"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (True, "tta is True"), (3, "tta is 3"), ("Flip", "no preset 'Flip'"), ({"sizes": "400"}, "tta.sizes"),
        ({"sises": [400]}, "did you mean 'sizes'"), ({"_target_": "os.getcwd"}, "unknown key tta._target_"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence(given: Any, words: str) -> None:
    with pytest.raises(FcosError) as error:
        tta_from(given)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_ways_to_say_none() -> None:
    assert [tta_from(given) for given in (None, False, "none")] == [None] * 3
    assert tta_from(OmegaConf.to_container(OmegaConf.create({"preset": "flip"}))) == PRESETS["flip"].tta
