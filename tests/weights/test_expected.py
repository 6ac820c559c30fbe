"""What a config file of a stranger says about weights: within the limits of every stored config, or one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fcos_d2.config.load import load_config
from fcos_d2.config.stored import dump_config
from fcos_d2.errors import FcosError
from fcos_d2.weights.expected import target_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{META_ARCHITECTURE: NoSuchNet}", "MODEL.META_ARCHITECTURE 'NoSuchNet'"),
        ("{META_ARCHITECTURE: FCOS, BACKBONE: {NAME: no_such_net}}", "MODEL.BACKBONE.NAME 'no_such_net'"),
        (
            "{META_ARCHITECTURE: FCOS, BACKBONE: {NAME: build_fcos_resnet_fpn_backbone}, FPN: {OUT_CHANNELS: 900000, "
            "IN_FEATURES: [res3, res4, res5]}, RESNETS: {OUT_FEATURES: [res3, res4, res5]}}",
            "too large",
        ),
        ("{META_ARCHITECTURE: FCOS, FCOS: {IN_FEATURES: [p9]}}", "p9"),
    ],
)
def test_a_strangers_yacs_file(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "stranger.yaml"
    path.write_text(f"MODEL: {text}\n")
    with pytest.raises(FcosError) as error:
        target_of(path)
    assert words in str(error.value) and "stranger.yaml" in str(error.value) and "\n" not in str(error.value)


def test_a_config_without_pixels_still_says_what_it_wants(tmp_path: Path) -> None:
    cfg = load_config("fcos_R_18_slim_FPN_small")
    tree = yaml.safe_load(dump_config(cfg))
    del tree["model"]["input_format"]
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(tree))
    target, known = target_of(path), target_of(cfg)
    assert target.pixels is None and known.pixels is not None and target.shapes == known.shapes
