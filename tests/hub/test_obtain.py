"""The cache: where files are looked for, what is checked, what two processes do, what is said when nothing helps."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from publisher import Publisher, publisher

from fcos_d2 import hub, zoo
from fcos_d2.errors import FcosError
from fcos_d2.hub import http, kept
from fcos_d2.zoo.addresses import ADDRESSES, Address
from fcos_d2.zoo.checkpoints import near

CONTENT = bytes(range(256)) * 500
DIGEST = hashlib.sha256(CONTENT).hexdigest()
NAME = "fcos_resnet50_fpn"
SETTINGS = ("FCOS_D2_OFFLINE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "FCOS_D2_MIRROR", "XDG_CACHE_HOME")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Publisher]:
    """A server, and a machine that has fetched nothing yet."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    for name, folder in (("FCOS_D2_CACHE", "cache"), ("TORCH_HOME", "torch"), ("FVCORE_CACHE", "iopath")):
        monkeypatch.setenv(name, str(tmp_path / folder))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("FCOS_D2_TIMEOUT", "2")
    monkeypatch.setattr(http, "_PAUSE", 0.01)
    with publisher() as found:
        yield found


def row(host: Publisher, digest: str = DIGEST, path: str = "a/x-1.pth", **fields: object) -> Address:
    return Address(f"{host.base}/{path}", digest, "MIT", **fields)  # type: ignore[arg-type]


def test_a_file_is_fetched_once_and_checked_each_time(host: Publisher, capfd: pytest.CaptureFixture) -> None:
    host.serve("a/x-1.pth", CONTENT)
    file = hub.obtain(row(host))
    assert file.read_bytes() == CONTENT and hub.obtain(row(host)) == file
    assert len(host.requests) == 1
    said = json.loads(Path(f"{file}.json").read_text())
    assert (said["sha256"], said["bytes"], said["url"]) == (DIGEST, len(CONTENT), f"{host.base}/a/x-1.pth")
    told = capfd.readouterr().err
    assert told.count("\n") == 1 and f"Fetching x-1.pth from {host.base}/a/x-1.pth to {file.parent}" in told

    file.write_bytes(CONTENT[:-1])
    assert hub.obtain(row(host)).read_bytes() == CONTENT
    assert "is damaged; it is fetched anew" in capfd.readouterr().err


def test_other_bytes_than_published_are_not_kept(host: Publisher) -> None:
    host.serve("a/x-1.pth", CONTENT)
    with pytest.raises(
        FcosError, match=rf"x-1\.pth cannot be fetched \(it has the SHA-256 {DIGEST[:8]}, but 01234567 "
    ):
        hub.obtain(row(host, "01234567"))
    assert not [path for path in kept.folder_of(Path("x")).rglob("*") if path.suffix in (".pth", ".part", ".json")]


def test_a_stale_part_is_given_up_once(host: Publisher) -> None:
    """It may be of another version of the file, or damaged; the digest tells, and the next try has all of it."""
    host.serve("a/x-1.pth", CONTENT)
    file = hub.file_of(row(host))
    file.parent.mkdir(parents=True)
    file.with_name("x-1.pth.part").write_bytes(b"x" * 1000)
    assert hub.obtain(row(host)).read_bytes() == CONTENT
    assert host.sent == ["bytes=1000-", ""]


def test_a_digest_that_nobody_published_is_kept_from_the_first_time(host: Publisher) -> None:
    host.serve("a/x-1.pth", CONTENT)
    file = hub.obtain(row(host, ""))
    host.serve("a/x-1.pth", CONTENT + b"!")
    file.write_bytes(b"damaged")
    with pytest.raises(FcosError, match=rf"but had {DIGEST} on 20\d\d-.*delete x-1\.pth\.json there if that is right"):
        hub.obtain(row(host, ""))
    Path(f"{file}.json").unlink()
    file.unlink()
    assert hub.obtain(row(host, "")).read_bytes() == CONTENT + b"!"


def test_a_file_that_was_put_there_by_hand_is_taken(host: Publisher) -> None:
    file = hub.file_of(row(host, ""))
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    assert hub.obtain(row(host, "")) == file and not host.requests
    assert json.loads(Path(f"{file}.json").read_text())["sha256"] == DIGEST
    file.write_bytes(b"x")  # later it is checked as others are
    host.serve("a/x-1.pth", CONTENT)
    assert hub.obtain(row(host, "")).read_bytes() == CONTENT


def test_the_digest_that_hugging_face_tells_is_checked(host: Publisher) -> None:
    host.serve("blob", CONTENT)
    host.serve("a/x-1.pth", location="/blob", headers={"X-Linked-ETag": f'"{"0" * 64}"'})
    with pytest.raises(FcosError, match=f"it has the SHA-256 {DIGEST}, but {'0' * 64} was published"):
        hub.obtain(row(host, ""))
    host.serve("a/x-1.pth", location="/blob", headers={"X-Linked-ETag": f'"{DIGEST}"', "X-Repo-Commit": "c0ffee"})
    file = hub.obtain(row(host, ""))
    assert json.loads(Path(f"{file}.json").read_text())["commit"] == "c0ffee"


def test_a_mirror_of_the_row_is_next(host: Publisher) -> None:
    host.serve("b/x-1.pth", CONTENT)
    found = hub.obtain(row(host, mirrors=(f"{host.base}/b/x-1.pth",)))
    assert found.read_bytes() == CONTENT
    with pytest.raises(FcosError) as error:
        hub.obtain(row(host, path="c.pth", mirrors=(f"{host.base}/d.pth",)))
    assert "(the server answers 404 Not Found; " in str(error.value)
    assert f"{host.base}/d.pth: the server answers 404" in str(error.value) and "\n" not in str(error.value)


# The folders and variables of others


def test_pytorchs_and_iopaths_folders_are_looked_into(host: Publisher, tmp_path: Path) -> None:
    hub_folder = tmp_path / "torch" / "hub" / "checkpoints"
    hub_folder.mkdir(parents=True)
    (hub_folder / "x-1.pth").write_bytes(CONTENT)
    assert hub.obtain(row(host, DIGEST[:8])) == hub_folder / "x-1.pth"
    (hub_folder / "x-1.pth").write_bytes(b"another file of this name")
    (tmp_path / "iopath" / "a").mkdir(parents=True)
    (tmp_path / "iopath" / "a" / "x-1.pth").write_bytes(CONTENT)
    assert hub.obtain(row(host, DIGEST[:8])) == tmp_path / "iopath" / "a" / "x-1.pth"
    assert not host.requests
    assert (hub_folder / "x-1.pth").read_bytes() == b"another file of this name"


def test_iopaths_file_without_a_published_digest_is_copied(host: Publisher, tmp_path: Path) -> None:
    address = ADDRESSES["detectron2://ImageNetPretrained/MSRA/R-50.pkl"]
    there = tmp_path / "iopath" / "detectron2" / "ImageNetPretrained" / "MSRA" / "R-50.pkl"
    there.parent.mkdir(parents=True)
    there.write_bytes(CONTENT)
    file = hub.obtain(address)
    assert file != there and file.read_bytes() == CONTENT and there.read_bytes() == CONTENT
    assert json.loads(Path(f"{file}.json").read_text())["sha256"] == DIGEST


@pytest.fixture
def default(host: Publisher, monkeypatch: pytest.MonkeyPatch) -> Address:
    """The default detector's row, with other bytes."""
    full = zoo.find(NAME).full_name
    changed = replace(zoo.DETECTORS[full], sha256=DIGEST, exact=False)
    monkeypatch.setitem(zoo.DETECTORS, full, changed)
    return changed


def test_a_mirror_by_the_name_of_the_file_or_by_the_variant(
    host: Publisher, default: Address, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FCOS_D2_MIRROR", f"{host.base}/mirror/")
    host.serve(f"mirror/torchvision/{NAME}/{default.file}", CONTENT)
    file = hub.obtain(default, NAME)
    assert [path for path, _ in host.requests] == [
        f"/mirror/{default.file}", f"/mirror/torchvision/{NAME}/{default.file}",
    ]  # fmt: skip
    file.unlink()
    (tmp_path / default.file).write_bytes(CONTENT)
    for mirror in (str(tmp_path), f"file://{tmp_path}"):
        monkeypatch.setenv("FCOS_D2_MIRROR", mirror)
        monkeypatch.setenv("FCOS_D2_OFFLINE", "1")  # a folder is no network
        hub.obtain(default, NAME).unlink()
    assert len(host.requests) == 2
    monkeypatch.setenv("FCOS_D2_MIRROR", str(tmp_path / "empty"))
    with pytest.raises(FcosError, match=rf"cannot be fetched \({tmp_path}/empty/.*: No such file or directory; "):
        hub.obtain(default, NAME)


def test_a_name_that_two_files_share_is_looked_for_by_its_path(
    host: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FCOS_D2_MIRROR", host.base)
    host.serve("R-50.pkl", b"which of them?")
    host.serve("detectron2/ImageNetPretrained/torchvision/R-50.pkl", CONTENT)
    assert hub.obtain(ADDRESSES["detectron2://ImageNetPretrained/torchvision/R-50.pkl"]).read_bytes() == CONTENT


def test_an_address_of_ones_own_is_not_looked_for_in_a_mirror(host: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FCOS_D2_MIRROR", f"{host.base}/mirror")
    host.serve("a/x-1.pth", CONTENT)
    assert hub.obtain(row(host)).read_bytes() == CONTENT


def test_hugging_faces_variables(host: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    address = zoo.DETECTORS["fcos/fcos_R_50_FPN_1x"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FcosError, match="are not in the cache, and --offline"):
        hub.obtain(address, "fcos_R_50_FPN_1x")
    assert not hub.is_offline("https://download.pytorch.org/x.pth")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", host.base)
    host.serve("tianzhi/FCOS/resolve/main/FCOS_R_50_FPN_1x.pth", CONTENT)
    assert hub.obtain(address, "fcos_R_50_FPN_1x").read_bytes() == CONTENT


# Sentences


def test_offline_is_one_sentence_with_what_to_do(
    host: Publisher, default: Address, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FCOS_D2_OFFLINE", "1")
    with pytest.raises(FcosError) as error:
        hub.require(NAME)
    text = str(error.value)
    file = tmp_path / "cache" / "weights" / "torchvision" / NAME / default.file
    for part in (default.url, str(file), "129.6 MB", f"fcos zoo fetch {NAME}", "FCOS_D2_MIRROR", "--weights FILE"):
        assert part in text, part
    assert "\n" not in text
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    assert hub.require(NAME) is default and hub.obtain(default, NAME) == file


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("hrnet/fcos_hrnet_w32_5l_2x", ("OneDrive", "1drv.ms", "fcos_hrnetv2p-w32", "put them at")),
        ("nas_fcos/R_50_NAS", ("megatools", "code f88u", NAME)),
        ("fcos_plus/fcos_R_101_FPN_2x", ("Baidu", "fcos/fcos_R_101_FPN_2x")),
        ("small/fcos_R_18_FPN_small", ("Nobody has published", NAME)),
        ("no_such", ("There is no variant",)),
    ],
)
def test_what_no_program_can_fetch_says_so_at_once(name: str, parts: tuple[str, ...], host: Publisher) -> None:
    with pytest.raises(FcosError) as error:
        hub.require(name)
    assert all(part in str(error.value) for part in parts), str(error.value)
    assert "\n" not in str(error.value) and not host.requests


def test_a_dead_row_is_taken_from_the_cache_or_a_mirror(
    host: Publisher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = "hrnet/fcos_hrnet_w32_5l_2x"
    with pytest.raises(FcosError, match="no program can fetch them"):
        hub.obtain(zoo.DETECTORS[name], name)
    monkeypatch.setenv("FCOS_D2_MIRROR", str(tmp_path))
    (tmp_path / "fcos_hrnet_w32_5l_2x.pth").write_bytes(CONTENT)
    assert hub.obtain(hub.require(name), name).read_bytes() == CONTENT
    monkeypatch.delenv("FCOS_D2_MIRROR")
    assert hub.obtain(hub.require(name), name).read_bytes() == CONTENT


def test_a_restricted_licence_is_shown_before_the_download(host: Publisher, capfd: pytest.CaptureFixture) -> None:
    host.serve("a/x-1.pth", CONTENT)
    hub.obtain(replace(row(host), licence="fcos"), "a_name")
    told = capfd.readouterr().err
    assert "Their licence: Non-commercial use only" in told and "(tianzhi0549/FCOS, LICENSE)" in told


def test_a_cache_that_cannot_be_written_is_one_sentence(
    host: Publisher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FCOS_D2_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(FcosError, match=r"cannot be written \(Not a directory\): set FCOS_D2_CACHE") as error:
        hub.obtain(row(host))
    assert "\n" not in str(error.value)


# Processes

BOTH = """
import sys
from types import ModuleType
sys.modules["fcos_d2_console"] = ModuleType("console")
sys.modules["fcos_d2_console"].started = True
from fcos_d2 import hub
from fcos_d2.zoo.addresses import Address
print(hub.obtain(Address(*sys.argv[1:])))
"""


def test_two_processes_fetch_a_file_once(host: Publisher) -> None:
    host.serve("a/x-1.pth", CONTENT, bytes_per_second=len(CONTENT) / 1.5)
    words = [sys.executable, "-c", BOTH, f"{host.base}/a/x-1.pth", DIGEST, "MIT"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": dict(os.environ)}
    processes = [subprocess.Popen(words, **pipes) for _ in range(3)]  # type: ignore[call-overload]
    ends = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], ends
    assert {out for out, _ in ends} == {f"{hub.file_of(row(host))}\n"}
    assert host.sent == [""]
    waited = [told for _, told in ends if "Another process fetches x-1.pth; waiting for it." in told]
    assert 1 <= len(waited) <= 2


# The tables


def test_rows_are_whole() -> None:
    fetchable = [full for full, address in zoo.DETECTORS.items() if not address.is_dead]
    assert len(fetchable) == 56 and len(zoo.DETECTORS) == 78
    every = {**ADDRESSES, **zoo.DETECTORS}
    for name, address in every.items():
        assert address.state in ("open", "browser", "gone"), name
        assert all(url.startswith("https://") for url in address.urls), name
        assert address.terms.name and set(address.sha256) <= set("0123456789abcdef"), name
        assert len(address.sha256) in (0, 8, 64), name
        assert address.state == "open" or address.reason, name
        assert address.backbone == (name in ADDRESSES), name
        assert address.file and not kept.place_of(address).is_absolute() and ".." not in kept.place_of(address).parts
    assert all(zoo.find(full).full_name == full for full in zoo.DETECTORS)
    places = {kept.place_of(address) for address in every.values()}
    assert len(places) == len({address.url for address in every.values()})
    assert zoo.published(NAME) is zoo.DETECTORS[f"torchvision/{NAME}"]
    assert not zoo.published(NAME).terms.restricted and zoo.published("x.pth") is None
    assert zoo.published("hrnet/ResNet_101_5l_2x") is zoo.published("fcos/fcos_R_101_FPN_2x")
    for variant in zoo.VARIANTS:
        assert all(not zoo.published(name).is_dead for name in near(variant))
