"""Whose a folder is, and how a new training takes the place of an old one: files only, nothing is trained."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from fcos_d2.errors import FcosError
from fcos_d2.train import workspace
from fcos_d2.train.workspace import DEMO, DEMO_IMAGES, EVALUATION, TRAINING, Workspace

OLD = {"model_final.pth": "old", "model_0000009.pth": "old", "last_checkpoint": "old", "config.yaml": "old"}
NEW = {
    "model_final.pth": "new",
    "model_best.pth": "new",
    "last_checkpoint": "new",
    "log.txt": "new",
    "extra.txt": "new",
}
OWN = {"notes.txt": "mine", "model_mine.pth": "mine", "sub/model_final.pth": "mine"}


def fill(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def contents(folder: Path) -> dict[str, str]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != workspace._MARKER]
    return {str(path.relative_to(folder)): path.read_text() for path in paths}


@pytest.fixture
def keep(tmp_path: Path) -> Path:
    """A training among files of the user's."""
    return fill(tmp_path / "keep", {**OLD, **OWN})


def write(opened: Workspace, files: dict[str, str], error: BaseException | None = None) -> None:
    """What a command does in a workspace."""
    with opened.writing() as folder:
        fill(folder, files)
        if error is not None:
            raise error


def replacing(keep: Path, **more: object) -> Workspace:
    return Workspace.open(keep, TRAINING, overwrite=True, **more)


def test_a_new_training_takes_the_place_of_the_old_one(keep):
    opened = replacing(keep)
    assert opened.replaces and not opened.folder.exists() and contents(keep) == {**OLD, **OWN}
    with opened.writing() as folder:
        fill(folder, NEW)
        assert contents(keep) == {**OLD, **OWN}
    assert contents(keep) == {**NEW, **OWN}
    assert sorted(path.name for path in keep.parent.iterdir()) == ["keep"]
    assert Workspace.open(keep, TRAINING, overwrite=True).replaces  # the marker says that it is a training


@pytest.mark.parametrize("error", [FcosError, KeyboardInterrupt, OSError])
def test_what_fails_at_once_leaves_nothing(keep, error):
    with pytest.raises(error):
        write(replacing(keep), {"log.txt": "new"}, error("no space left"))
    assert contents(keep) == {**OLD, **OWN} and sorted(path.name for path in keep.parent.iterdir()) == ["keep"]


def test_what_fails_after_a_checkpoint_can_go_on(keep):
    with pytest.raises(KeyboardInterrupt):
        write(replacing(keep), {"last_checkpoint": "x", "model_0000003.pth": "new"}, KeyboardInterrupt())
    assert contents(keep) == {**OLD, **OWN}
    with pytest.raises(FcosError, match=r"keep\.new an interrupted one that was to replace it: go on with --resume"):
        Workspace.open(keep, TRAINING)
    opened = Workspace.open(keep, TRAINING, resume=True)
    assert opened.replaces and opened.can_go_on
    with opened.writing(resume=True) as folder:
        (folder / "model_0000003.pth").unlink()
        fill(folder, NEW)
    assert contents(keep) == {**NEW, **OWN} and not folder.exists()


def killed(folder: Path, keep: Path) -> None:
    """What is on disk when a process is killed while it writes."""
    fill(folder, {workspace._MARKER: '{"holds": "training", "replaces": "%s"}' % keep.resolve()})  # noqa: UP031


def test_an_interrupted_training_comes_back_when_its_successor_fails(keep):
    opened = replacing(keep)
    killed(opened.folder, keep)
    fill(opened.folder, {"last_checkpoint": "first", "model_0000003.pth": "first"})
    with pytest.raises(FcosError):
        write(replacing(keep), {"log.txt": "second"}, FcosError("no such weights"))
    assert contents(opened.folder) == {"last_checkpoint": "first", "model_0000003.pth": "first"}
    # The same where the successor is killed: the next command puts it back.
    os.rename(opened.folder, opened.folder.with_name("keep.new.old"))
    killed(opened.folder, keep)
    assert Workspace.open(keep, TRAINING, resume=True).can_go_on
    assert contents(opened.folder)["last_checkpoint"] == "first"
    # And a successor with a checkpoint of its own is the one that goes on.
    with pytest.raises(KeyboardInterrupt):
        write(replacing(keep), {"last_checkpoint": "second"}, KeyboardInterrupt())
    assert Workspace.open(keep, TRAINING, resume=True).folder == opened.folder
    assert contents(opened.folder) == {"last_checkpoint": "second"}
    assert not opened.folder.with_name("keep.new.old").exists()


def test_a_process_killed_during_the_exchange_loses_nothing(tmp_path, monkeypatch):
    """Every call that changes the folders may be the last one, from the moment when the new training is complete."""
    for number in itertools.count(1):
        keep = fill(tmp_path / str(number) / "keep", {**OLD, **OWN})
        opened = replacing(keep)
        if not _exchange_until_call(number, opened, monkeypatch):
            break
        whole = {**contents(keep), **(contents(opened.folder) if opened.folder.exists() else {})}
        assert {name: whole[name] for name in (*NEW, *OWN)} == {**NEW, **OWN}
        again = Workspace.open(keep, TRAINING, resume=True)
        assert again.folder == keep and contents(keep) == {**NEW, **OWN} and not opened.folder.exists()
    assert number > len(NEW) + 2 and contents(keep) == {**NEW, **OWN}


def _exchange_until_call(number: int, opened: Workspace, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Write `NEW`; the process ends before one of the calls that change folders. Returns whether it got so far."""
    left = number

    def counted(function):
        def call(*args, **kwargs):
            nonlocal left
            if left == 0:
                raise MemoryError  # stands for SIGKILL: nothing more happens
            left -= 1
            return function(*args, **kwargs)

        return call

    entered = opened.writing()
    fill(entered.__enter__(), NEW)
    with monkeypatch.context() as patch:
        patch.setattr(workspace.shutil, "rmtree", counted(workspace.shutil.rmtree))
        patch.setattr(workspace.os, "replace", counted(os.replace))
        patch.setattr(Path, "unlink", counted(Path.unlink))
        try:
            entered.__exit__(None, None, None)
        except MemoryError:
            return True
    return False


def test_an_exchange_that_was_cut_off_leaves_a_new_folder_of_that_name_alone(keep, monkeypatch):
    opened = replacing(keep)
    assert _exchange_until_call(3, opened, monkeypatch)
    keep.rename(keep.with_name("moved"))
    fill(keep, {"config.yaml": "mine"})
    with pytest.raises(FcosError, match=r"keep holds config\.yaml, which `fcos train` did not write"):
        Workspace.open(keep, TRAINING, resume=True)
    assert contents(keep) == {"config.yaml": "mine"} and contents(opened.folder)


def test_a_full_disk_during_the_exchange_is_one_sentence(keep, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    opened = replacing(keep).writing()
    fill(opened.__enter__(), NEW)
    with monkeypatch.context() as patch:
        patch.setattr(workspace, "write_json", lambda *_: None)
        patch.setattr(workspace, "_marker", lambda _: {"complete": list(NEW), "patterns": [], "holds": "training"})
        patch.setattr(workspace.os, "replace", full)
        with pytest.raises(FcosError, match=r"is complete.*--resume finishes that"):
            opened.__exit__(None, None, None)
    assert contents(keep) == {**OLD, **OWN}


def test_files_of_the_users_of_a_new_name_stay(keep):
    fill(keep, {"extra.txt": "mine"})
    with replacing(keep).writing() as folder:
        fill(folder, NEW)
    assert contents(keep) == {**NEW, **OWN, "extra.txt": "mine", "extra.txt.new": "new"}


def test_logs_name_the_final_folder(keep):
    with replacing(keep).writing() as folder:
        fill(folder, {**NEW, "log.txt": f"kept as {folder}/model_final.pth"})
    assert (keep / "log.txt").read_text() == f"kept as {keep}/model_final.pth"


def test_a_folder_without_a_training_is_used_as_it_is(tmp_path):
    for target in (tmp_path / "new", fill(tmp_path / "notes", {"notes.txt": "mine"})):
        opened = replacing(target)
        assert opened.folder == target
        with opened.writing() as folder:
            fill(folder, NEW)
        assert contents(target).items() >= NEW.items()


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        (TRAINING, {"config.yaml": "mine"}),
        (TRAINING, {"data/synthetic.json": "{}", "training.jsonl": "", "model_final.pth": ""}),
        (DEMO, OLD),
        (DEMO, {**OLD, "metrics.json": "{}", "summary.json": "{}"}),
        (DEMO, {"notes.txt": "mine"}),
        (DEMO, {"data/synthetic.json": "{}", "log.txt": "", "notes.txt": "mine"}),
        (DEMO, {"data/mine.txt": "mine"}),
        (EVALUATION, OLD),
        (EVALUATION, {"summary.json": '{"title": "my report"}'}),
        (EVALUATION, {"log.txt": "mine"}),
    ],
)
def test_a_folder_of_something_else_is_refused(tmp_path, kind, files):
    fill(tmp_path / "there", files)
    with pytest.raises(FcosError, match="choose another --output"):
        Workspace.open(tmp_path / "there", kind, overwrite=True)
    assert contents(tmp_path / "there") == files


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        (DEMO, {"data/synthetic.json": "{}", "training.jsonl": "", "last_checkpoint": "", "metrics.json": "{}"}),
        (DEMO, {"data/synthetic.json": "{}", "config.yaml": "", "log.txt": ""}),  # interrupted
        (TRAINING, OLD),
        (EVALUATION, {"summary.json": '{"dataset": "d", "weights": "w", "AP50": 0.1}', "log.txt": ""}),
    ],
)
def test_folders_from_before_the_marker_are_recognised(tmp_path, kind, files):
    target = fill(tmp_path / "there", files)
    with Workspace.open(target, kind, overwrite=kind is not EVALUATION).writing() as folder:
        fill(folder, {"log.txt": "new"})
    assert contents(target)["log.txt"] == "new"


def test_a_demo_with_other_images_replaces_those_of_the_old_one(tmp_path):
    demo = fill(tmp_path / "demo", {"training.jsonl": "old", "data/synthetic.json": "old", "data/train.json": "old"})
    fill(demo / "data" / "images", {"train_000000.jpg": "old", "train_000001.jpg": "old", "mine.jpg": "mine"})
    opened = Workspace.open(demo, DEMO, overwrite=True)
    opened.extra = DEMO_IMAGES
    with opened.writing() as folder:
        fill(folder, {"training.jsonl": "new", "data/synthetic.json": "new", "data/images/train_000000.jpg": "new"})
    assert contents(demo) == {
        "training.jsonl": "new",
        "data/synthetic.json": "new",
        "data/images/train_000000.jpg": "new",
        "data/images/mine.jpg": "mine",
    }


def test_inputs_in_the_folder_that_is_replaced(keep):
    opened = replacing(keep)
    killed(opened.folder, keep)
    weights = fill(opened.folder, {"model_0000003.pth": "first", "last_checkpoint": "first"}) / "model_0000003.pth"
    with pytest.raises(FcosError, match="copy it elsewhere first"):
        replacing(keep, inputs=[weights])
    assert Workspace.open(keep, TRAINING, resume=True, overwrite=True, inputs=[weights]).folder == opened.folder


def test_somebody_elses_folder_beside_is_not_touched(keep):
    other = fill(keep.with_name("keep.new"), {"notes.txt": "mine"})
    with pytest.raises(FcosError, match=r"keep\.new is needed for the new training"):
        replacing(keep)
    assert contents(other) == {"notes.txt": "mine"}


def test_a_link_the_current_folder_and_a_folder_of_another_file_system(keep, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(keep)
    assert replacing(tmp_path / "link").folder == tmp_path.resolve() / "keep.new"
    monkeypatch.chdir(keep)
    with replacing(Path(".")).writing() as folder:
        assert folder == tmp_path.resolve() / "keep.new"
        fill(folder, NEW)
    assert contents(keep) == {**NEW, **OWN} and Path.cwd() == keep.resolve()
    monkeypatch.setattr(workspace.os, "access", lambda *_: False)  # no folder can be made beside it
    with replacing(keep).writing() as folder:
        assert folder == keep / ".new"
        fill(folder, {"last_checkpoint": "third"})
    assert contents(keep) == {"last_checkpoint": "third", "extra.txt": "new", **OWN}


def test_a_file_in_the_place_of_the_folder(tmp_path):
    fill(tmp_path, {"file": ""})
    with pytest.raises(FcosError, match="file is a file"):
        Workspace.open(tmp_path / "file", TRAINING)
    with pytest.raises(FcosError, match="cannot be written"), Workspace.open(tmp_path / "file/out", TRAINING).writing():
        pass
