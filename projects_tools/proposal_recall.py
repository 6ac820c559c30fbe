"""Train two-stage detectors that differ in their first stage alone, and compare what they propose.

    python -m projects_tools.proposal_recall DATA OUT --iterations 800

By default FCOS with and without centerness, and Detectron2's RPN: the same backbone, data, seed, optimizer and number
of iterations. The recall of the last weights is measured on the val images. OUT gets recall.json, recall.png and a
folder for each training.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from fcos_d2 import zoo
from fcos_d2.files import write_json
from fcos_d2.modeling.proposals import first_stage
from fcos_d2.train import LazyTrainer, configure
from fcos_d2.visualize import draw_recall

NAMES = tuple(f"faster_rcnn_{kind}R_18_slim_FPN_small" for kind in ("fcos_", "fcos_no_centerness_", ""))


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("data", type=Path, help="folder with images and labels")
    parser.add_argument("out", type=Path, help="folder for the results")
    parser.add_argument("--models", nargs="+", default=NAMES, help="rows of zoo.PROPOSALS or config files")
    parser.add_argument("--iterations", type=int, default=800)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--image-size", type=int, default=192, help="shorter side, pixels")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def recall_of(model: str, given: argparse.Namespace) -> dict[str, Any]:
    """Train one from scratch, and measure what it proposes and detects."""
    cfg = configure(
        given.data, model, weights="none", output=given.out / model, iterations=given.iterations,
        batch_size=given.batch_size, image_size=given.image_size, workers=0, device="cpu",
        overrides=[f"train.seed={given.seed}", "train.eval_period=0", "train.pictures=False"],
    )  # fmt: skip
    trainer = LazyTrainer(cfg)
    detected = trainer.train()
    trainer.model = trainer.bare_model = first_stage(trainer.bare_model)
    found = trainer.evaluate()["box_proposals"]
    assert trainer.recall is not None, "the evaluator was given proposals"
    numbers = {name: round(value / 100, 4) for name, value in found.items()}
    return {"AP": round(detected.get("bbox", {}).get("AP", 0.0) / 100, 4), **numbers, "curve": trainer.recall.curve()}


def title(model: str) -> str:
    """How a curve is called."""
    if not zoo.is_name(model):
        return Path(model).stem
    row = zoo.find(model)
    assert isinstance(row, zoo.ProposalVariant)
    kind = "without centerness" if "no_centerness" in row.recipe else "with centerness"
    return "RPN (Detectron2)" if row.generator == "RPN" else f"FCOS, {kind}"


def main(arguments: list[str] | None = None) -> None:
    """Train, compare, draw; models whose numbers are in OUT already are not trained again."""
    given = options(arguments)
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    file = given.out / "recall.json"
    asked = {key: str(value) for key, value in vars(given).items() if key not in ("models", "out")}
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    found = known["models"] if known.get("asked") == asked else {}
    for model in given.models:
        if model not in found:
            found[model] = recall_of(model, given)
            write_json(file, {"asked": asked, "models": found})
        print(model, {key: value for key, value in found[model].items() if key != "curve"}, flush=True)
    draw_recall({title(name): found[name]["curve"] for name in given.models}, given.out / "recall.png")


if __name__ == "__main__":
    main()
