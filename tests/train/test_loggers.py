"""Where the course of training goes. Weights & Biases and MLflow themselves take part where they are installed."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from detectron2.utils.events import EventWriter

from fcos_d2.errors import FcosError
from fcos_d2.libraries import is_installed, require_library
from fcos_d2.train import LazyTrainer, loggers


def trained(config, **options) -> Path:
    trainer = LazyTrainer(config, console=False, **options)
    trainer.train()
    return Path(trainer.output_dir)


def test_tensorboard_has_losses_ap_and_pace(small):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = trained(small("out", "train.max_iter=6", "train.eval_period=3"))
    events = EventAccumulator(str(folder))
    events.Reload()
    names = events.Tags()["scalars"]
    assert {"total_loss", "loss_fcos_cls", "lr", "bbox/AP", "bbox/AP50", "images_per_second", "memory_mib"} <= {*names}
    assert [event.step for event in events.Scalars("bbox/AP")] == [2, 5]


def test_tensorboard_says_why_it_is_left_out(tmp_path, monkeypatch, caplog):
    def refuse(folder):
        raise UnicodeEncodeError("ascii", str(folder), 0, 1, "ordinal not in range(128)")

    monkeypatch.setattr(loggers, "TensorboardXWriter", refuse)
    with caplog.at_level(logging.WARNING, "fcos_d2"):
        assert loggers.tensorboard(str(tmp_path / "größe")) == []
    (record,) = caplog.records
    assert "TensorBoard gets nothing" in record.getMessage() and r"gr\xf6\xdfe" in record.getMessage()


class Failing(EventWriter):
    calls = 0

    def write(self):
        type(self).calls += 1
        raise OSError(28, "No space left on device")


def test_a_logger_that_fails_is_one_warning(small, monkeypatch, caplog):
    monkeypatch.setattr(loggers, "TensorboardXWriter", lambda folder: Failing())
    with caplog.at_level(logging.WARNING, "fcos_d2"):
        folder = trained(small("out", "train.max_iter=4"))
    said = [record.getMessage() for record in caplog.records if "TensorBoard" in record.getMessage()]
    assert len(said) == 1 and "No space left on device" in said[0] and Failing.calls == 1
    assert (folder / "model_final.pth").is_file()


def test_a_library_that_is_missing_is_told_before_the_first_step(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    trainer = LazyTrainer(small("out", "train.loggers=[wandb]"), console=False)
    trainer.run_step = lambda: pytest.fail("an iteration was begun")
    with pytest.raises(FcosError, match=r"^train\.loggers needs the package wandb, .*: pip install wandb$"):
        trainer.train()


@pytest.mark.parametrize(
    ("error", "remedy"),
    [(ImportError("no name"), "pip install --upgrade mlflow"), (OSError("x"), "MLFLOW_TRACKING_URI")],
)
def test_why_a_run_cannot_begin_and_what_to_do(error, remedy, monkeypatch):
    def refuse(trainer):
        raise error

    monkeypatch.setitem(loggers.LOGGERS, "mlflow", refuse)
    monkeypatch.setattr(loggers, "require_library", lambda name, wanted_by: None)
    with pytest.raises(FcosError, match=f"MLflow cannot begin .*: .*{remedy}"):
        loggers.loggers(SimpleNamespace(options=SimpleNamespace(loggers=("mlflow",))))


def test_a_folder_is_no_library(tmp_path, monkeypatch):
    """Weights & Biases leaves ./wandb behind, which Python takes for a package without files."""
    (tmp_path / "wandbx").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not is_installed("wandbx") and is_installed("json") and not is_installed("no_such_library")
    with pytest.raises(FcosError, match="--log wandbx needs the package wandbx"):
        require_library("wandbx", "--log wandbx")


@pytest.mark.parametrize("value", ["[tensorbord]", "wandb", "[1]"])
def test_wrong_values_are_one_sentence(small, value):
    with pytest.raises(FcosError, match=r"train\.loggers.*wandb"):
        LazyTrainer(small("out", f"train.loggers={value}"), console=False)


class Kept(loggers.RunWriter):
    """A logger that keeps what it is sent."""

    name = "wandb"
    runs: dict = {}  # noqa: RUF012

    def begin(self, title, run_id, values):
        self.run = self.runs.setdefault(
            run_id or f"run {len(self.runs)}", {"title": title, "values": values, "sent": []}
        )
        self._id = next(key for key, run in self.runs.items() if run is self.run)

    @property
    def id(self):
        return self._id

    def send(self, scalars, iteration):
        self.run["sent"].append((iteration, scalars))

    def end(self, pictures):
        self.run["pictures"] = [path.name for path in pictures]


@pytest.mark.slow
def test_a_run_gets_options_scalars_and_pictures_and_goes_on_when_resumed(small, monkeypatch):
    monkeypatch.setattr(Kept, "runs", {})
    monkeypatch.setitem(loggers.LOGGERS, "wandb", Kept)
    monkeypatch.setattr(loggers, "require_library", lambda name, wanted_by: None)
    words = ("train.loggers=[wandb]", "train.pictures=true", "train.eval_period=2")
    folder = trained(small("a run", *words, "train.max_iter=2"))
    (run,) = Kept.runs.values()
    assert run["title"] == "a run" and run["values"]["train.max_iter"] == 2 and "optimizer.lr" in run["values"]
    assert [iteration for iteration, _ in run["sent"]] == [0, 1] and "bbox/AP" in run["sent"][1][1]
    assert run["pictures"] == list(loggers.PICTURES)
    assert json.loads((folder / "loggers.json").read_text()) == {"wandb": "run 0"}
    trained(small("a run", *words, "train.max_iter=4"), resume=True)
    assert list(Kept.runs) == ["run 0"] and [i for i, _ in run["sent"]] == [0, 1, 2, 3]
    trained(small("another", *words, "train.max_iter=2"))
    assert list(Kept.runs) == ["run 0", "run 1"]


@pytest.mark.skipif(not is_installed("mlflow"), reason="mlflow is not installed")
def test_mlflow_in_a_file(small, tmp_path, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    words = ("train.loggers=[mlflow]", "train.pictures=true", "train.eval_period=2")
    trained(small("mine", *words, "train.max_iter=2"))
    trained(small("mine", *words, "train.max_iter=4"), resume=True)
    client = MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("fcos_d2").experiment_id])
    assert run.info.run_name == "mine" and run.info.status == "FINISHED" and run.data.params["train.max_iter"] == "2"
    assert [point.step for point in client.get_metric_history(run.info.run_id, "total_loss")] == [0, 1, 2, 3]
    assert [point.step for point in client.get_metric_history(run.info.run_id, "bbox/AP")] == [1, 3]
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {*loggers.PICTURES}


@pytest.mark.skipif(not is_installed("wandb"), reason="wandb is not installed")
def test_wandb_offline(small, tmp_path, monkeypatch):
    for name, value in (("WANDB_MODE", "offline"), ("WANDB_DIR", str(tmp_path)), ("WANDB_SILENT", "true")):
        monkeypatch.setenv(name, value)
    folder = trained(small("mine", "train.loggers=[wandb]", "train.pictures=true", "train.max_iter=2"))
    number = json.loads((folder / "loggers.json").read_text())["wandb"]
    (file,) = (tmp_path / "wandb").glob(f"offline-run-*-{number}/run-{number}.wandb")
    data = file.read_bytes()
    assert all(name in data for name in (b"total_loss", b"bbox/AP", b"memory_mib", b"optimizer.lr", b"confusion"))
