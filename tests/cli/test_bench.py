"""`fcos bench` measures one detector, and says where the comparison with others is."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from fcos_d2.cli import cli
from fcos_d2.cli.session import Session

SMALL = ["--model", "fcos_R_18_slim_FPN_small", "--size", "96x128", "--seconds", "0.2", "--device", "cpu"]


def run(*arguments: str):
    return CliRunner().invoke(cli, ["bench", *arguments], obj=Session(), env={"COLUMNS": "120"})


def test_plain_beside_optimized() -> None:
    done = run(*SMALL, "--batch", "2", "--optimize", "fp32", "--optimize", "bf16-backbone", "--json")
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    assert (data["height"], data["width"], data["batch"]) == (96, 128, 2)
    assert data["parameters"] > 1e6 and data["gflops"] > 0 and data["device"].startswith("cpu")
    plain, exact, rounded = data["ways"]
    assert [row["name"] for row in data["ways"]] == ["plain", "optimized, fp32", "optimized, bf16-backbone"]
    assert plain["detections"] is None and plain["speed_up"] == 1
    assert exact["detections"]["equal"] and 0 < exact["detections"]["total"] <= 40
    assert rounded["detections"]["score"] > exact["detections"]["score"]
    assert all(0 < row["fastest_ms"] <= row["ms_per_image"] <= row["slowest_ms"] for row in data["ways"])
    assert all(row["runs"] >= 2 and row["first_run_ms"] > 0 for row in data["ways"])


def test_table_and_help_name_the_comparison_with_others() -> None:
    done = run(*SMALL, "--optimize", "none")
    assert done.exit_code == 0, done.output
    assert "ms an image" in done.stdout and "optimized" not in done.stdout
    for text in (done.stdout, run("--help").stdout):
        assert "projects_tools.bench" in " ".join(text.split())


@pytest.mark.parametrize("size", ["96", "0x4", "a x b"])
def test_a_wrong_size(size: str) -> None:
    done = run("--size", size)
    assert done.exit_code == 2 and "HEIGHTxWIDTH" in str(done.output)
