from __future__ import annotations

import os
from pathlib import Path

import pytest

from fcos_d2.data.destination import MARKER, new_folder
from fcos_d2.errors import FcosError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


def fill(target: Path, source: Path, text: str = "1", broken: bool = False, **options: bool) -> None:
    with new_folder(target, source, {"command": "make"}, **options) as folder:
        (folder / "in").mkdir()
        (folder / "in" / "a.txt").write_text(text)
        (folder / "link").symlink_to(source)
        if broken:
            raise RuntimeError


def seen(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("empty", [False, True])
def test_it_is_whole_or_not_there(tmp_path, source, empty):
    target = tmp_path / "new"
    if empty:
        target.mkdir()
    with pytest.raises(RuntimeError):
        fill(target, source, broken=True)
    assert target.exists() is empty and seen(tmp_path) == ({"source", "new"} if empty else {"source"})
    fill(target, source)
    assert seen(target) == {"in", "in/a.txt", "link", MARKER} and seen(tmp_path) >= {"source", "new"}
    assert {path.name for path in tmp_path.iterdir()} == {"source", "new"}


def test_only_its_own_is_replaced_and_only_if_asked(tmp_path, source):
    target = tmp_path / "new"
    fill(target, source)
    with pytest.raises(FcosError, match="holds what `make` has made: replace it with --overwrite"):
        fill(target, source, "2")
    assert (target / "in" / "a.txt").read_text() == "1"
    fill(target, source, "2", overwrite=True)
    assert (target / "in" / "a.txt").read_text() == "2"
    assert {path.name for path in tmp_path.iterdir()} == {"source", "new"}


@pytest.mark.parametrize("change", ["added", "written", "removed", "relinked", "marker"])
def test_what_was_changed_since_is_the_users(tmp_path, source, change):
    target = tmp_path / "new"
    fill(target, source)
    if change == "added":
        (target / "in" / "notes.txt").write_text("mine")
    elif change == "written":
        (target / "in" / "a.txt").write_text("2")
    elif change == "removed":
        (target / "in" / "a.txt").unlink()
    elif change == "relinked":
        (target / "link").unlink()
        (target / "link").symlink_to(tmp_path)
    else:
        (target / MARKER).write_text("[]")
    before = seen(target)
    with pytest.raises(FcosError, match="did not make, or whose files were changed since"):
        fill(target, source, "2", overwrite=True)
    assert seen(target) == before and {path.name for path in tmp_path.iterdir()} == {"source", "new"}


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("mine", "holds files that this command did not make: choose another folder"),
        ("file", "is there and is no folder"), ("file/in", "cannot be written"), ("source/in", "lies in"),
        ("source", "lies in"), ("link/in", "lies in"), ("dangling", "is there and is no folder"),
    ],
)  # fmt: skip
def test_nothing_of_anybody_elses_is_touched(tmp_path, source, where, said):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(source)
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    before = seen(tmp_path)
    with pytest.raises(FcosError, match=said):
        fill(tmp_path / where, source, overwrite=True)
    assert seen(tmp_path) == before


def test_a_link_to_an_empty_folder_is_filled(tmp_path, source):
    (tmp_path / "disk").mkdir()
    (tmp_path / "new").symlink_to(tmp_path / "disk")
    fill(tmp_path / "new", source)
    assert (tmp_path / "new").is_symlink() and (tmp_path / "disk" / "in" / "a.txt").read_text() == "1"


@pytest.mark.skipif(os.geteuid() == 0, reason="may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path, source):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(FcosError, match="cannot be written: Permission denied"):
        fill(tmp_path / "locked" / "new", source)
