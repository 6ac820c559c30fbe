from __future__ import annotations

import importlib
import json

import click
import pytest
from detectron2.config import LazyConfig

import fcos_d2
from fcos_d2 import zoo
from fcos_d2.cli import COMMANDS, cli


@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row.name)
def test_row_names_a_command_with_help(row, fcos):
    command = importlib.import_module(f"fcos_d2.cli.{row.module}").command
    assert command.name == row.name
    outcome = fcos(row.name, "--help")
    assert outcome.code == 0
    assert "--json" in outcome.out and "--debug" in outcome.out
    assert [option.name for option in command.params if isinstance(option, click.Option) and not option.help] == []


def test_help_lists_every_command_in_80_columns(fcos, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    outcome = fcos("--help")
    assert outcome.code == 0
    for row in COMMANDS:
        assert f"{row.name} " in outcome.out and row.help in outcome.out
    assert max(map(len, outcome.out.splitlines())) <= 80


def test_without_a_command_shows_help(fcos):
    outcome = fcos()
    assert "Commands:" in outcome.out + outcome.err


def test_version_names_the_parts(fcos):
    outcome = fcos("--version")
    assert outcome.code == 0
    assert fcos_d2.__version__ in outcome.out
    assert fcos_d2._compat.DETECTRON2_FLAVOUR in outcome.out and "PyTorch 2." in outcome.out


@pytest.mark.parametrize(
    ("typo", "meant"), [("trian", "train"), ("zo", "zoo"), ("dettect", "detect"), ("convrt", "convert")]
)
def test_typo_suggests_the_nearest(fcos, typo, meant):
    outcome = fcos(typo)
    assert outcome.code == 2
    assert f"'{typo}'" in outcome.err and f"'{meant}'" in outcome.err
    assert outcome.out == ""


@pytest.mark.parametrize("words", [["a.jpg"], ["https://example.org/a"], ["--threshold", "0.3", "a.png"], ["."]])
def test_image_instead_of_a_command_is_detect(words):
    context = cli.make_context("fcos", list(words), resilient_parsing=True)
    arguments = [*context._protected_args, *context.args]
    assert cli.resolve_command(context, arguments)[1].name == "detect"


def test_command_wins_over_a_folder_of_its_name(fcos, tmp_path):
    (tmp_path / "zoo").mkdir()
    assert json.loads(fcos("zoo", "--json").out)["variants"]


def test_zoo_lists_all_variants(fcos, monkeypatch):
    rows = json.loads(fcos("zoo", "--json").out)["variants"]
    assert [row["name"] for row in rows] == [*zoo.names(), *(row.name for row in zoo.PROPOSALS)]
    row = next(row for row in rows if row["name"] == "fcos_imprv_R_50_FPN_1x")
    assert row["ap"] == 38.7 and row["backbone"] == "R_50_FPN" and row["recipe"] == "improved" and row["licence"]
    assert 32e6 < row["parameters"] < 33e6
    assert LazyConfig.load(row["config"]).model.num_classes == 80
    monkeypatch.setenv("COLUMNS", "120")
    text = fcos("zoo").out
    assert all(name in text for name in zoo.names())


def test_zoo_narrows_to_a_family(fcos):
    text = fcos("zoo", "--family", "fcos_plus").out
    assert "fcos_R_50_FPN_1x_center_giou" in text and "fcos_imprv" not in text
    outcome = fcos("zoo", "--family", "yolo")
    assert outcome.code == 1 and "adelaidet" in outcome.err


def test_zoo_tells_how_to_use_one(fcos):
    text = fcos("zoo", "fcos_imprv_R_50_FPN_1x").out
    assert "38.7" in text and "fcos train --data DIR --model fcos_imprv_R_50_FPN_1x" in text


def test_zoo_of_an_unknown_name(fcos):
    outcome = fcos("zoo", "fcos_imprv_R_50_FPM_1x")
    assert outcome.code == 1
    assert outcome.err.startswith("error: ") and "fcos_imprv_R_50_FPN_1x" in outcome.err
    assert outcome.err.count("\n") == 1
