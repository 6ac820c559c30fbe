"""What a checkpoint holds besides the weights: all that decides how training goes on.

It is complete in the first process at any moment: random generators are seeded anew for each iteration, from the seed,
the iteration and the process, and the buffers of other processes arrive with each iteration's losses (`LossReport`).
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.engine.train_loop import TrainerBase
from detectron2.utils import comm
from fvcore.common.param_scheduler import ParamScheduler
from torch import Tensor

from ..config.train_options import TrainOptions
from ..errors import FcosError
from ..evaluation.scores import percents
from ..files import sha256_of
from ..weights.fit import Policy, fit
from ..weights.read import load, read
from .buffers import own_buffers
from .building import BuildingTrainer
from .hooks import NO_BETTER

__all__ = ["State", "finished", "iterations_done"]

logger = logging.getLogger("fcos_d2")


def finished(folder: str | Path, options: TrainOptions) -> dict[str, Any] | None:
    """The last results of the training in a folder if it is complete, so that resuming has nothing to do; else None."""
    folder = Path(folder)
    try:
        state = load(folder / (folder / "last_checkpoint").read_text(encoding="utf-8").strip())["trainer"]
        results = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
        done, evaluated = int(state["iteration"]) + 1, results.pop("iteration")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # what is wrong is said where it is resumed
        return None
    complete = done >= options.max_iter or _stopped(state, options)
    if not complete or _of_evaluation(state).get("pending", False) or evaluated != done - 1:
        return None
    return percents(results)


def iterations_done(folder: str | Path) -> int:
    """Iterations that the training in a folder has done, as its last checkpoint says; 0 if there is none."""
    folder = Path(folder)
    try:
        name = (folder / "last_checkpoint").read_text(encoding="utf-8").strip()
        return int(load(folder / name)["iteration"]) + 1
    except (OSError, FcosError, KeyError, TypeError, ValueError):  # what is wrong is said where it is resumed
        return 0


def _of_evaluation(state: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint's state says of its `EvaluationHook`."""
    return state.get("hooks", {}).get("EvaluationHook", {})


def _stopped(state: Mapping[str, Any], options: TrainOptions) -> str:
    """Why a training ended early, as its checkpoint says; empty if it did not, or more patience lets it go on."""
    reason, waited = state.get("stopped", ""), _of_evaluation(state).get("since_best", 0)
    patience = options.early_stop.patience
    return "" if reason.startswith(NO_BETTER) and waited and not 0 < patience <= waited else reason


class State:
    """The entry "trainer" of a checkpoint.

    Its keys: `iteration`, the last one that is done (-1: none); `seed`; `stopped`, why training ended early, or empty;
    `optimizer`, `grad_scaler`, `stream`, `hooks`; `ema_updates`; `buffers`, those of each process that `own_buffers`
    names; and `_trainer`, where Detectron2's main branch looks for the optimizer.
    """

    def __init__(self, trainer: BuildingTrainer) -> None:
        self.trainer = trainer
        self.resumed: dict[str, Any] = {}  # the state that training begins with, until it does
        self.buffers: dict[str, Tensor] = {}  # of all processes, after the last step
        self.written: set[int] = set()  # iterations of this training's files model_<iteration>.pth

    def state_dict(self) -> dict[str, Any]:
        trainer = self.trainer
        common = {"iteration": trainer.done, "seed": trainer.seed, "stopped": trainer.stop_reason}
        if not trainer.is_prepared:
            return {**self.resumed, **common}
        state = {
            **TrainerBase.state_dict(trainer),  # the hooks'
            **common,
            "optimizer": trainer.optimizer.state_dict(),
            "grad_scaler": trainer.step.scaler.state_dict(),
            "stream": trainer.stream.state_dict(),
            "buffers": self.buffers,
        }
        if trainer.average is not None:
            state["ema_updates"] = trainer.average.updates
        return state | {"_trainer": {key: state[key] for key in ("iteration", "optimizer", "grad_scaler")}}

    @property
    def pending(self) -> bool:
        """Whether the checkpoint was written before an evaluation that is still to be done."""
        return _of_evaluation(self.resumed).get("pending", False)

    def found(self) -> str:
        """The checkpoint to resume from, the same for all processes; empty if there is none.

        Raises FcosError if `last_checkpoint` names a file that is gone, or processes find different files.
        """
        comm.synchronize()  # the first process has written its last checkpoint
        checkpointer = self.trainer.checkpointer
        path, said, fault = "", "none", None
        try:
            if checkpointer.has_checkpoint():
                path = checkpointer.get_checkpoint_file()
                if comm.get_world_size() > 1:
                    said = f"{Path(path).name}, SHA-256 {sha256_of(path)[:8]}..."
        except (FcosError, OSError) as error:  # which the others must hear of
            said, fault = str(error), error
        if len(set(found := comm.all_gather(said))) > 1:
            raise FcosError(
                f"The processes find different checkpoints in {self.trainer.output_dir} ({'; '.join(found)}): let all "
                "machines share that folder, or copy the first one's to the others."
            )
        if fault is not None:
            raise fault
        return path

    def resume(self, path: str) -> None:
        """Take the weights of a checkpoint, and what decides where training begins; `restore` does the rest.

        Raises FcosError if it cannot be read, does not fit, or holds weights only.
        """
        trainer, weights = self.trainer, read(path)
        if "trainer" not in weights.extra:
            hint = "it holds weights only; pass it as train.init_checkpoint instead"
            raise FcosError(f"{path} cannot be resumed: {hint}.")
        fit(trainer.bare_model, weights, Policy(class_names=trainer.class_names, averaged=False, other_recipe="warn"))
        if trainer.average is not None:
            trainer.average.restart()
            trainer.average.load_state_dict(dict(weights.averages or {}))
            if weights.averages is None:
                logger.warning("%s has no averaged weights; the average starts with its weights.", path)
        self.load_state_dict(weights.extra["trainer"])
        found = (re.fullmatch(r"model_(\d{7,})\.pth", file.name) for file in Path(path).parent.glob("model_*.pth"))
        self.written = {int(match[1]) for match in found if match and int(match[1]) <= trainer.done}
        logger.info("Going on from %s, %d of %d iterations are done.", path, trainer.start_iter, trainer.max_iter)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What decides where training begins, nothing for the beginning; the rest waits for `restore`."""
        trainer = self.trainer
        self.resumed, self.buffers = state, state.get("buffers", {})
        for name, buffer in own_buffers(trainer.bare_model).items():
            values = self.buffers.get(name)
            if values is not None and values.shape[1:] == buffer.shape:
                same = len(values) == comm.get_world_size()
                buffer.copy_(values[comm.get_rank()] if same else values.mean(0))
        trainer.done = int(state.get("iteration", -1))
        trainer.start_iter = trainer.done + 1
        trainer.seed = state.get("seed", trainer.seed)
        for name in ("data_loader", "stream"):  # are made anew: their order comes from the seed
            trainer.__dict__.pop(name, None)
        if trainer.average is not None:
            trainer.average.updates = state.get("ema_updates", 0)
        trainer.stop_reason, reason = _stopped(state, trainer.options), state.get("stopped", "")
        if reason and not trainer.stop_reason:
            patience = trainer.options.early_stop.patience
            logger.info("Training had ended (%s); train.early_stop.patience=%d lets it go on.", reason, patience)

    def restore(self) -> None:
        """Put optimizer, scaler, data and hooks, which are built, to where the resumed training was."""
        state, self.resumed = self.resumed, {}
        if not state:
            return
        trainer = self.trainer
        if optimizer := state.get("optimizer", state.get("_trainer", {}).get("optimizer")):
            self._restore_optimizer(optimizer)
        else:
            logger.warning("The optimizer starts anew: the checkpoint does not hold its state.")
        TrainerBase.load_state_dict(trainer, state)  # the hooks'
        if state.get("grad_scaler"):
            trainer.step.scaler.load_state_dict(state["grad_scaler"])
        if "stream" in state:
            trainer.stream.load_state_dict(state["stream"])
        else:
            logger.warning("The training images start from the beginning: the checkpoint does not say where it was.")

    def _restore_optimizer(self, state: dict[str, Any]) -> None:
        """The config's options count, not the file's; but a scheduler of PyTorch's goes on from the file's rates."""
        optimizer = self.trainer.optimizer
        chosen = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
        try:
            optimizer.load_state_dict(state)
        except (ValueError, KeyError) as error:
            raise FcosError(f"The optimizer of the checkpoint does not fit that of the config: {error}.") from error
        kept = () if isinstance(self.trainer.scheduler, ParamScheduler) else ("lr", "initial_lr")
        for group, options in zip(optimizer.param_groups, chosen):
            options["initial_lr"] = options["lr"]
            group.update({key: value for key, value in options.items() if key not in kept})
