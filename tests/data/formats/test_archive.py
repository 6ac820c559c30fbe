"""Archives of data sets: unpacked once, never outside, never without end."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

import pytest
from label_files import in_voc, parts_of, picture, write

from fcos_d2.data import find_dataset
from fcos_d2.data.formats import archive
from fcos_d2.errors import FcosError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FCOS_D2_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "unpacked"


def zipped(path: Path, folder: Path, inside: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for one in sorted(folder.rglob("*")):
            file.write(one, os.path.join(inside, one.relative_to(folder)))
        file.writestr("__MACOSX/._0.xml", "x")
    return path


@pytest.fixture
def data(tmp_path) -> Path:
    picture(tmp_path / "data" / "0.png")
    write(tmp_path / "data" / "0.xml", in_voc("0.png", (32, 24), [("dog", [4, 6, 8, 3])]))
    return tmp_path / "data"


@pytest.mark.parametrize("inside", ["", "my data/deeper"])
def test_an_archive_is_unpacked_once(tmp_path, data, cache, inside):
    path = zipped(tmp_path / "my pets.zip", data, inside)
    before = find_dataset(path)
    assert before.format == "voc" and cache in before.root.parents and "my_pets-" in str(before.root)
    stamp = (before.root / "0.xml").stat().st_mtime_ns
    assert parts_of(path)["train"] == [("0.png", "dog", [4, 6, 8, 3])]
    assert (before.root / "0.xml").stat().st_mtime_ns == stamp and len(list(cache.iterdir())) == 1
    write(data / "0.xml", in_voc("0.png", (32, 24), [("cat", [4, 6, 8, 3])]))
    zipped(path, data)
    assert parts_of(path)["train"][0][1] == "cat" and len(list(cache.iterdir())) == 2


@pytest.mark.parametrize(
    "name", ["../out.txt", "a/../../out.txt", "/out.txt", "C:/out.txt", "..\\out.txt", "a/..\\..\\b"]
)
def test_nothing_leads_outside(tmp_path, cache, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("train.json", "{}")
        file.writestr(zipfile.ZipInfo(name), "x")
    with pytest.raises(FcosError, match="leads outside of it"):
        find_dataset(tmp_path / "a.zip")
    assert not list(cache.iterdir()) and not list(tmp_path.rglob("out.txt"))


def test_links_are_left_out(tmp_path, data):
    path = zipped(tmp_path / "a.zip", data)
    with zipfile.ZipFile(path, "a") as file:
        link = zipfile.ZipInfo("secret.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "/etc/passwd")
    assert not os.path.lexists(find_dataset(path).root / "secret.png")


def test_a_bomb_is_refused(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(archive, "_SMALL", 1 << 20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zeros.png", bytes(2 << 20))
    with pytest.raises(FcosError, match=r"would grow from 2 KiB to 2 MiB"):
        find_dataset(tmp_path / "a.zip")
    assert not cache.exists() or not list(cache.iterdir())


def test_an_archive_that_says_less_than_it_has(tmp_path, cache):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zeros.png", bytes(1 << 16))
    said = path.read_bytes().replace((1 << 16).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    path.write_bytes(said)
    with pytest.raises(FcosError, match=r"a\.zip"):
        find_dataset(path)
    assert not list(cache.iterdir())


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "cannot be unpacked"),
        (b"PK\3\4 and more", "cannot be unpacked"),
        (None, "cannot be unpacked"),
        (b"PK\5\6" + bytes(18), "holds no file"),
    ],
)
def test_a_damaged_archive_is_one_sentence(tmp_path, data, content, match):
    path = zipped(tmp_path / "a.zip", data)
    whole = path.read_bytes()
    path.write_bytes(whole[:60] + b"\xff" * 40 + whole[100:] if content is None else content)
    with pytest.raises(FcosError, match=match) as error:
        find_dataset(path)
    assert "\n" not in str(error.value)


def test_other_archives_are_named(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(b"x")
    with pytest.raises(FcosError, match="archive of a kind that is not read: unpack it"):
        find_dataset(tmp_path / "a.tar.gz")
