"""Models without weights are like those with weights in all but that."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import instantiate

from fcos_d2.config.compose import compose
from fcos_d2.modeling.unfilled import unfilled


@pytest.mark.parametrize(("recipe", "backbone"), [("fad", "R_18_slim_FPN"), ("realtime", "DLA_34_FPN")])
def test_names_shapes_and_kinds_are_those_of_a_model_with_weights(recipe: str, backbone: str) -> None:
    node = compose(recipe, backbone, "1x").model
    before = torch.get_rng_state()
    with unfilled():
        model = instantiate(node)
    assert torch.equal(torch.get_rng_state(), before)  # nothing was drawn
    real = instantiate(node)
    assert not torch.equal(torch.get_rng_state(), before)
    ours, theirs = model.state_dict(), real.state_dict()
    assert list(ours) == list(theirs) and all(value.is_meta for value in ours.values())
    assert [(x.shape, x.dtype) for x in ours.values()] == [(x.shape, x.dtype) for x in theirs.values()]
    assert [type(m) for m in model.modules()] == [type(m) for m in real.modules()]
    trained = [[p.requires_grad for p in x.parameters()] for x in (model, real)]
    assert trained[0] == trained[1]
