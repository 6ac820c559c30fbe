"""How many pictures a second `fcos check --no-pictures` looks at: a COCO file is made, and checked in this process.

python -m projects_tools.many_labels --images 20000
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from fcos_d2.data import FORMATS, find_dataset
from fcos_d2.data.audit import audit


def write(folder: Path, images: int, boxes: float) -> None:
    """A train.json of pictures of COCO's usual size, with so many boxes of 80 classes in each on average."""
    rng = np.random.default_rng(0)
    side = np.exp(rng.uniform(np.log(8), np.log(300), (round(images * boxes), 2)))
    low = rng.uniform(0, 1, side.shape) * ((640, 480) - side)
    rows = np.concatenate((low, side), 1).round(2).tolist()
    coco = {
        "images": [
            {"id": n, "file_name": f"{n:012}.jpg", "width": 640, "height": 480} for n in range(1, images + 1)
        ],
        "annotations": [
            {"id": n + 1, "image_id": int(n // boxes) + 1, "category_id": n % 80 + 1, "bbox": box,
             "area": round(box[2] * box[3], 2), "iscrowd": 0}
            for n, box in enumerate(rows)
        ],
        "categories": [{"id": n, "name": f"class {n}"} for n in range(1, 81)],
    }  # fmt: skip
    (folder / "images").mkdir()
    (folder / "train.json").write_text(json.dumps(coco), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--boxes", type=int, default=7, help="in each picture")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), arguments.images, arguments.boxes)
        layout = find_dataset(name)
        reader = next(row.read for row in FORMATS if row.name == layout.format)
        started = time.perf_counter()
        found = audit(layout, reader, pictures=False)
        seconds = time.perf_counter() - started
    counts = found.ledger["train"]
    print(
        f"{arguments.images} pictures, {counts['in']} boxes: {seconds:.2f} s, {arguments.images / seconds:.0f} a second"
    )


if __name__ == "__main__":
    main()
