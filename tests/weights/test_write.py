"""The checkpointer with Detectron2's own hooks, before, during and after training."""

from __future__ import annotations

import pytest
import torch
from detectron2.engine import HookBase, TrainerBase
from detectron2.engine.hooks import BestCheckpointer, PeriodicCheckpointer
from detectron2.utils.events import EventStorage, get_event_storage

from fcos_d2.errors import FcosError
from fcos_d2.weights.read import read
from fcos_d2.weights.write import Checkpointer


class State:
    """Something else that is kept."""

    def __init__(self) -> None:
        self.value = 0

    def state_dict(self) -> dict[str, int]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.value = state["value"]


class Trainer(TrainerBase):
    """Adds 1 to the only weight in each iteration."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(self.model.weight)
        self.state = State()
        self.checkpointer = Checkpointer(self.model, folder, extra={"class_names": ["a"]}, state=self.state)

    def run_step(self) -> None:
        self.state.value += 1
        with torch.no_grad():
            self.model.weight.add_(1)


class Metric(HookBase):
    def after_step(self) -> None:
        get_event_storage().put_scalar("AP", -abs(self.trainer.iter - 2))


def test_detectron2s_hooks_write_with_it(tmp_path):
    trainer = Trainer(str(tmp_path))
    trainer.checkpointer.save("before")  # complete before training, too
    trainer.register_hooks(
        [
            Metric(),
            BestCheckpointer(1, trainer.checkpointer, "AP"),
            PeriodicCheckpointer(trainer.checkpointer, 2, max_to_keep=1),
        ]
    )
    trainer.train(0, 6)

    names = sorted(path.name for path in tmp_path.glob("*.pth"))
    assert names == ["before.pth", "model_0000005.pth", "model_best.pth", "model_final.pth"]
    for name, steps in {"before": 0, "model_best": 3, "model_0000005": 6, "model_final": 6}.items():
        weights = read(tmp_path / f"{name}.pth")
        assert weights.tensors["weight"].item() == steps
        assert weights.extra["state"] == {"value": steps}
        assert weights.class_names == ("a",)
    assert trainer.checkpointer.has_checkpoint()
    assert trainer.checkpointer.get_checkpoint_file() == str(tmp_path / "model_final.pth")


def test_what_was_written_is_loaded_and_resumed(tmp_path):
    trainer = Trainer(str(tmp_path))
    with EventStorage():
        for _ in range(3):
            trainer.run_step()
    trainer.checkpointer.save("x", iteration=2)

    again = Trainer(str(tmp_path))
    rest = again.checkpointer.resume_or_load("", resume=True)
    assert (again.model.weight.item(), again.state.value, rest["iteration"]) == (3, 3, 2)

    weights_only = Trainer(str(tmp_path))
    weights_only.checkpointer.resume_or_load(str(tmp_path / "x.pth"), resume=False)
    assert (weights_only.model.weight.item(), weights_only.state.value) == (3, 0)
    assert weights_only.checkpointer.load("") == {}
    other = Checkpointer(torch.nn.Linear(2, 1, bias=False), str(tmp_path))
    with pytest.raises(FcosError, match=r"x\.pth was made for another model"):
        other.load(str(tmp_path / "x.pth"))
