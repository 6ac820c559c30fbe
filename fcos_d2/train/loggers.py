"""Where the course of training goes besides metrics.json: TensorBoard, Weights & Biases, MLflow.

All of them get the scalars of Detectron2's storage under their names, AP from 0 to 100 as there. None of them stops a
training: what fails while it runs is one warning, and the rest of the training goes without that logger.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from detectron2.utils.events import EventWriter, TensorboardXWriter, get_event_storage

from ..errors import FcosError
from ..files import write_json
from ..libraries import require_library

__all__ = ["LOGGERS", "RunWriter", "loggers", "tensorboard"]

logger = logging.getLogger("fcos_d2")

PROJECT = "fcos_d2"
PICTURES = ("curves.png", "confusion.png", "misses.jpg", "hits.jpg")
_WINDOW = 20  # iterations that noisy scalars are the median of, as in Detectron2's writers
_RUNS = "loggers.json"  # ids of the runs in the output folder, so that a resumed training goes on with them


class _Guarded(EventWriter):
    """A writer whose first failure is a warning, and which does nothing from then on."""

    def __init__(self, name: str, writer: EventWriter) -> None:
        self.name, self.writer = name, writer
        self._works = True

    def write(self) -> None:
        self._try(self.writer.write)

    def close(self) -> None:
        self._try(self.writer.close)

    def _try(self, call: Any) -> None:
        if not self._works:
            return
        try:
            call()
        except Exception as error:  # of the network, the disk, the library
            self._works = False
            logger.warning("%s gets nothing more (%s); training goes on.", self.name, _reason(error))


def tensorboard(folder: str) -> list[EventWriter]:
    """A writer of TensorBoard's events into a folder; none where it is not installed, or cannot have the folder."""
    if importlib.util.find_spec("tensorboard") is None:
        return []
    try:
        return [_Guarded("TensorBoard", TensorboardXWriter(folder))]
    except UnicodeEncodeError:
        logger.warning(
            "TensorBoard gets nothing: in this locale it cannot write to a folder whose name is not ASCII, %s; set "
            "PYTHONUTF8=1.",
            ascii(folder),
        )
    except OSError as error:
        logger.warning("TensorBoard gets nothing (%s); training goes on.", _reason(error))
    return []


def loggers(trainer: Any) -> list[EventWriter]:
    """Writers of what `train.loggers` names, each with a run that has begun.

    Raises:
        FcosError: a library is not installed, or a run cannot begin; the message says what to do.
    """
    found: list[EventWriter] = []
    for name in trainer.options.loggers:
        require_library(name, "train.loggers")
        try:
            writer = LOGGERS[name](trainer)
        except Exception as error:  # whatever their servers and files are
            damaged = f"its packages do not fit together: pip install --upgrade {name}."
            remedy = damaged if isinstance(error, ImportError) else REMEDIES[name]
            raise FcosError(f"{TITLES[name]} cannot begin ({_reason(error)}): {remedy}") from error
        found.append(_Guarded(TITLES[name], writer))
    return found


class RunWriter(EventWriter):
    """Sends new scalars to a run, pictures in the end, and keeps the run's id for a resumed training."""

    name: str

    def __init__(self, trainer: Any) -> None:
        self.trainer, self._last = trainer, -1
        folder = Path(trainer.output_dir)
        known = _known(folder)
        self.begin(trainer.title, known.get(self.name) if trainer.start_iter else None, options(trainer))
        write_json(folder / _RUNS, {**known, self.name: self.id})

    @property
    def id(self) -> str:
        raise NotImplementedError

    def begin(self, title: str, run_id: str | None, values: dict[str, Any]) -> None:
        """Begin a run, or go on with the one of an id, and tell it the options."""
        raise NotImplementedError

    def send(self, scalars: dict[str, float], iteration: int) -> None:
        raise NotImplementedError

    def end(self, pictures: list[Path]) -> None:
        raise NotImplementedError

    def write(self) -> None:
        new: dict[int, dict[str, float]] = {}
        for name, (value, iteration) in get_event_storage().latest_with_smoothing_hint(_WINDOW).items():
            if iteration > self._last:
                new.setdefault(iteration, {})[name] = float(value)
        for iteration in sorted(new):
            self.send(new[iteration], iteration)
            self._last = iteration

    def close(self) -> None:
        self.end([path for name in PICTURES if (path := Path(self.trainer.output_dir) / name).is_file()])


class Wandb(RunWriter):
    """Weights & Biases: project, mode and folder are those of its own variables (WANDB_PROJECT, WANDB_MODE, ...)."""

    name = "wandb"

    def begin(self, title: str, run_id: str | None, values: dict[str, Any]) -> None:
        import wandb

        project = os.environ.get("WANDB_PROJECT") or PROJECT
        resumed = {"id": run_id, "resume": "allow"} if run_id else {}
        self._wandb: Any = wandb
        self._run = wandb.init(project=project, name=title, config=values, **resumed)

    @property
    def id(self) -> str:
        return str(self._run.id)

    def send(self, scalars: dict[str, float], iteration: int) -> None:
        self._run.log(scalars, step=iteration)

    def end(self, pictures: list[Path]) -> None:
        if pictures:
            self._run.log({path.stem: self._wandb.Image(str(path)) for path in pictures})
        self._run.finish()


class MLflow(RunWriter):
    """MLflow: where to is for its own variables to say (MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME)."""

    name = "mlflow"

    def begin(self, title: str, run_id: str | None, values: dict[str, Any]) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._client, self._metric = MlflowClient(), Metric
        if run_id:
            self._id = run_id
            self._client.update_run(run_id, "RUNNING")
            return
        project = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        experiment = self._client.get_experiment_by_name(project)
        number = self._client.create_experiment(project) if experiment is None else experiment.experiment_id
        self._id = self._client.create_run(number, run_name=title).info.run_id
        rows = [Param(_allowed(name), str(value)[:500]) for name, value in values.items()]
        self._client.log_batch(self._id, params=rows[:100])

    @property
    def id(self) -> str:
        return self._id

    def send(self, scalars: dict[str, float], iteration: int) -> None:
        now = int(time.time() * 1000)
        rows = [self._metric(_allowed(name), value, now, iteration) for name, value in scalars.items()]
        for start in range(0, len(rows), 1000):  # more it does not take at once
            self._client.log_batch(self._id, metrics=rows[start : start + 1000])

    def end(self, pictures: list[Path]) -> None:
        for path in pictures:
            self._client.log_artifact(self._id, str(path))
        trainer = self.trainer
        complete = trainer.done + 1 >= trainer.max_iter or trainer.stop_reason
        self._client.set_terminated(self._id, "FINISHED" if complete else "KILLED")


LOGGERS: dict[str, type[RunWriter]] = {"wandb": Wandb, "mlflow": MLflow}
TITLES = {"wandb": "Weights & Biases", "mlflow": "MLflow"}
REMEDIES = {
    "wandb": "log in with `wandb login`, or set WANDB_MODE=offline.",
    "mlflow": "set MLFLOW_TRACKING_URI to a server or a file, for example sqlite:///mlflow.db.",
}


def options(trainer: Any) -> dict[str, Any]:
    """What a run is told of its config: single values of `train`, `optimizer` and `dataloader.train`, by their keys."""
    text = trainer.checkpointer.extra["config"]
    nodes = yaml.safe_load(text) if text else {}
    nodes = nodes if isinstance(nodes, dict) else {}
    data = nodes.get("dataloader")
    chosen = {"train": nodes.get("train"), "optimizer": nodes.get("optimizer")}
    chosen["dataloader"] = {"train": data.get("train")} if isinstance(data, dict) else None
    return dict(_flat(chosen, ""))


def _flat(node: Any, key: str) -> Any:
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _flat(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, (int, float, str)) and not str(node).startswith("${"):
        yield key, node


def _known(folder: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads((folder / _RUNS).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def _allowed(name: str) -> str:
    """A name with the letters that MLflow takes."""
    return re.sub(r"[^\w/.\- ]", "_", name)[:250]


def _reason(error: Exception) -> str:
    return (" ".join(str(error).split())[:200] or type(error).__name__).rstrip(".")
