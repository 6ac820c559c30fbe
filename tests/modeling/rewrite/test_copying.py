"""Rewriting leaves what it is given as it was, and its results can be copied, pickled and saved."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from detectron2.modeling.backbone.resnet import ResNet
from scenes import detector
from torch import nn

from fcos_d2.modeling.rewrite import prepare_training, rewrite, rewrites_of
from fcos_d2.modeling.rewrite.copying import Replacement, rebuilt
from fcos_d2.modeling.rewrite.precision import Guarded
from fcos_d2.modeling.rewrite.recompute import Recomputed


def facts(module: nn.Module) -> list[tuple[Any, ...]]:
    """All that rewriting could change about a module: objects, classes, attributes, hooks, versions of tensors."""
    return [
        (
            name,
            id(part),
            type(part),
            {key: id(value) for key, value in vars(part).items()},
            [(key, id(x)) for key, x in part.named_children()],
            [(key, id(x), x._version, x.requires_grad) for key, x in part.named_parameters(recurse=False)],
            [(key, id(x), x._version) for key, x in part.named_buffers(recurse=False)],
            list(part._forward_hooks) + list(part._forward_pre_hooks),
        )
        for name, part in module.named_modules()
    ]


WAYS: list[dict[str, Any]] = [
    {"freeze": ("backbone.bottom_up", "dense.head.cls_tower")},
    {"fold": True},
    {"recompute": "all"},
    {"precision": "autocast"},
    {"sync_bn": False},
]


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: next(iter(way)))
def test_what_is_given_stays_as_it_was(way: dict[str, Any], share: bool) -> None:
    model = detector(norm="SyncBN" if "sync_bn" in way else "BN", freeze_at=0)
    model.backbone.bottom_up.res2[0].conv1.register_forward_hook(lambda *_: None)
    before = facts(model)
    new = rewrite(model, **way, share_tensors=share)
    assert facts(model) == before
    assert rewrites_of(model) == ()
    assert len(rewrites_of(new)) == 1
    assert list(new.state_dict()) == list(model.state_dict())
    assert not {id(x) for x in model.modules()} & {id(x) for x in new.modules()}
    pointers = [{x.data_ptr() for x in m.state_dict().values()} for m in (model, new)]
    assert (pointers[0] == pointers[1]) is share
    assert pointers[0].isdisjoint(pointers[1]) is not share
    assert new.backbone.bottom_up.res2[0].conv1._forward_hooks


def test_lists_of_detectron2_lead_to_the_new_parts() -> None:
    model = rewrite(detector(norm="BN", freeze_at=0), recompute="backbone")
    net: ResNet = model.backbone.bottom_up
    assert [id(stage) for stage in net.stages] == [id(getattr(net, name)) for name in net.stage_names]
    assert all(isinstance(block, Recomputed) for stage in net.stages for block in stage)
    convs = {id(part) for part in model.backbone.children()}
    assert all(id(conv) in convs for conv in model.backbone.lateral_convs)


def test_parts_that_refer_to_each_other_in_a_circle() -> None:
    class Inner(nn.Module):
        pass

    class Outer(nn.Module):
        pass

    outer = Outer()
    outer.inner = Inner()
    outer.inner.__dict__["above"] = outer
    kinds = {Inner: type("NewInner", (Inner,), {}), Outer: type("NewOuter", (Outer,), {})}
    new = rebuilt(outer, lambda part: Replacement(kinds[type(part)]))
    assert type(new) is kinds[Outer]
    assert type(new.inner) is kinds[Inner]
    assert new.inner.above is new


def test_results_are_copied_pickled_and_loaded() -> None:
    plain = detector(norm="BN", freeze_at=0)
    model = prepare_training(plain, device="cpu", amp=True, recompute="all")
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert [type(m) for m in other.modules()] == [type(m) for m in model.modules()]
        assert rewrites_of(other) == rewrites_of(model) == ("recompute: all", "precision: autocast")
        assert sum(isinstance(m, Recomputed) for m in other.modules()) == 11
        assert sum(isinstance(m, Guarded) for m in other.modules()) > 3
        other.load_state_dict(plain.state_dict())


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ({"recompute": "head"}, "recompute.*'head'.*'none', 'backbone', 'all'"),
        ({"precision": "int8"}, "precision.*'int8'"),
        ({"freeze": ("backbone.neck",)}, "freeze names 'backbone.neck', which FCOS has not"),
    ],
)
def test_what_it_does_not_know(way: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rewrite(detector(), **way)
