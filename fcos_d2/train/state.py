"""What a checkpoint holds besides the weights: all that decides how training goes on.

It is complete in the first process at any moment: random generators are seeded anew for each iteration, from the seed,
the iteration and the process, and the buffers of other processes arrive with each iteration's losses (`LossReport`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from detectron2.utils import comm
from fvcore.common.param_scheduler import ParamScheduler
from torch import Tensor

from ..errors import FcosError
from ..weights.fit import Policy, fit
from ..weights.read import read
from .buffers import own_buffers

if TYPE_CHECKING:
    from .trainer import LazyTrainer

__all__ = ["State"]

logger = logging.getLogger("fcos_d2")


class State:
    """The entry "trainer" of a checkpoint.

    Its keys: `iteration`, the last one that is done (-1: none); `seed`; `stopped`, why training ended early, or empty;
    `optimizer`, `grad_scaler`, `stream`, `hooks`; `ema_updates`; `buffers`, those of each process that `own_buffers`
    names; and `_trainer`, where Detectron2's main branch looks for the optimizer.

    Args:
        trainer: whose state this is.
    """

    def __init__(self, trainer: LazyTrainer) -> None:
        self.trainer = trainer
        self.resumed: dict[str, Any] = {}  # the state that training begins with, until it does
        self.buffers: dict[str, Tensor] = {}  # of all processes, after the last step

    def state_dict(self) -> dict[str, Any]:
        trainer = self.trainer
        common = {"iteration": trainer.done, "seed": trainer.seed, "stopped": trainer.stop_reason}
        if not trainer.is_prepared:
            return {**self.resumed, **common}
        state = {
            **trainer.hooks_state(),
            **common,
            "optimizer": trainer.optimizer.state_dict(),
            "grad_scaler": trainer.step.scaler.state_dict(),
            "stream": trainer.stream.state_dict(),
            "buffers": self.buffers,
        }
        if trainer.average is not None:
            state["ema_updates"] = trainer.average.updates
        return state | {"_trainer": {key: state[key] for key in ("iteration", "optimizer", "grad_scaler")}}

    def forget(self) -> None:
        """Back to the beginning of training."""
        self.resumed, self.buffers = {}, {}
        self.trainer.start_iter, self.trainer.done, self.trainer.stop_reason = 0, -1, ""
        self._forget_data()

    def _forget_data(self) -> None:
        """Let the training data be made anew: its order comes from the seed, which the checkpoint decides about."""
        for name in ("data_loader", "stream"):
            self.trainer.__dict__.pop(name, None)

    def resume(self, path: str) -> None:
        """Take the weights of a checkpoint, and what decides where training begins; `restore` does the rest.

        Raises:
            FcosError: it cannot be read, does not fit, or holds weights only.
        """
        trainer, weights = self.trainer, read(path)
        if "trainer" not in weights.extra:
            hint = "it holds weights only; pass it as train.init_checkpoint instead"
            raise FcosError(f"{path} cannot be resumed: {hint}.")
        fit(trainer.bare_model, weights, Policy(class_names=trainer.class_names, averaged=False))
        if trainer.average is not None:
            trainer.average.restart()
            if weights.averages is not None:
                trainer.average.load_state_dict(dict(weights.averages))
            else:
                logger.warning("%s has no averaged weights; the average starts with its weights.", path)
        self.load_state_dict(weights.extra["trainer"])
        logger.info("Going on from %s, at iteration %d of %d.", path, trainer.start_iter, trainer.max_iter)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What decides where training begins; the rest waits for `restore`."""
        trainer = self.trainer
        self.resumed = state
        self.buffers = state.get("buffers", {})
        self._restore_buffers()
        trainer.done = int(state["iteration"])
        trainer.start_iter = trainer.done + 1
        trainer.seed = state.get("seed", trainer.seed)
        self._forget_data()
        trainer.stop_reason = self._stopped(state)
        if trainer.average is not None:
            trainer.average.updates = state.get("ema_updates", 0)

    def _stopped(self, state: dict[str, Any]) -> str:
        """Why training has ended for good; a larger `train.early_stop.patience` lets it go on."""
        reason, patience = state.get("stopped", ""), self.trainer.options.early_stop.patience
        waited = state.get("hooks", {}).get("EvaluationHook", {}).get("since_best", 0)
        if reason.startswith("no better ") and waited and not 0 < patience <= waited:  # the reason of EvaluationHook
            logger.info("Training had ended (%s); train.early_stop.patience=%d lets it go on.", reason, patience)
            return ""
        return reason

    def _restore_buffers(self) -> None:
        for name, buffer in own_buffers(self.trainer.bare_model).items():
            values = self.buffers.get(name)
            if values is not None and values.shape[1:] == buffer.shape:
                same = len(values) == comm.get_world_size()
                buffer.copy_(values[comm.get_rank()] if same else values.mean(0))

    def restore(self) -> None:
        """Put optimizer, scaler, data and hooks, which are built, to where the resumed training was."""
        state, self.resumed = self.resumed, {}
        if not state:
            return
        trainer = self.trainer
        optimizer = state.get("optimizer", state.get("_trainer", {}).get("optimizer"))
        if optimizer is None:
            logger.warning("The optimizer starts anew: the checkpoint does not hold its state.")
        else:
            self._restore_optimizer(trainer.optimizer, optimizer)
        trainer.load_hooks_state(state)
        if state.get("grad_scaler"):
            trainer.step.scaler.load_state_dict(state["grad_scaler"])
        if "stream" in state:
            trainer.stream.load_state_dict(state["stream"])
        else:
            logger.warning("The training images start from the beginning: the checkpoint does not say where it was.")

    def _restore_optimizer(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """The config's options count, not the file's; but a scheduler of PyTorch's goes on from the file's rates."""
        chosen = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        try:
            optimizer.load_state_dict(state)
        except (ValueError, KeyError) as error:
            raise FcosError(f"The optimizer of the checkpoint does not fit that of the config: {error}.") from error
        derived = isinstance(self.trainer.scheduler, ParamScheduler)
        for group, options in zip(optimizer.param_groups, chosen):
            if derived:
                group.update(options, initial_lr=options["lr"])
            else:
                group.update({key: value for key, value in options.items() if key not in ("lr", "initial_lr")})
