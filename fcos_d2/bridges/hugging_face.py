"""A detector as a repository of the Hugging Face Hub: safetensors, config and card in a folder.

    write_repository("output/mine/model_best.pth", "my-detector", licence="apache-2.0")

`hf upload owner/my-detector my-detector` publishes it; `Predictor("my-detector")` and
`Predictor("hf://owner/my-detector")` use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import FcosError
from ..files import write_atomically, write_json
from ..hub import located
from ..libraries import require_library
from ..paths import HUB_FILE
from ..weights.fetch import fetch
from ..weights.packing import packed
from ..weights.read import Weights, read

__all__ = ["write_repository"]

_KEPT = ("class_names", "config", "thresholds")  # entries of a checkpoint that detecting needs
_CARD = """---
{head}
---

# {name}

A detector of {count} classes ({classes}), made with fcos_d2: FCOS, fully convolutional one-stage object detection.

```python
from fcos_d2 import Predictor

predictor = Predictor("hf://owner/{name}")  # or the folder
print(predictor.describe(predictor("photo.jpg")["instances"]))
```

Boxes are left, top, right, bottom in pixels of the picture, scores lie in 0..1.
{thresholds}"""


def write_repository(weights: str | Path, folder: str | Path, licence: str | None = None) -> Path:
    """Write model.safetensors, config.json and README.md.

    Args:
        weights: a checkpoint that holds its config and the names of its classes.
        folder: that is not there yet, or empty.
        licence: of the detector, as the Hub names it, such as "apache-2.0".
    Returns:
        The folder.
    Raises:
        FcosError: the checkpoint does not say what it is, the folder is taken, or it cannot be written.
    """
    for package in ("huggingface_hub", "safetensors"):
        require_library(package, "write_repository")
    from safetensors.torch import save

    folder = Path(folder).expanduser()
    found = read(fetch(located(str(weights))))
    if found.config is None or found.class_names is None:
        raise FcosError(f"{weights} does not hold its config and class names: train with fcos_d2, or convert it first.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FcosError(f"{folder} is there already, and nothing is overwritten: choose another folder.")
    plain = {key: found.extra[key] for key in _KEPT if found.extra.get(key) is not None}
    data = save(*packed(found.chosen(), plain))
    write_atomically(folder / HUB_FILE, lambda file: file.write(data))
    write_json(folder / "config.json", _config(found))
    card = _card(folder.absolute().name, found, licence)
    write_atomically(folder / "README.md", lambda file: file.write(card.encode()))
    return folder


def _config(found: Weights) -> dict[str, Any]:
    """What the Hub and its programs ask a config for."""
    names = found.class_names or ()
    return {
        "model_type": "fcos_d2",
        "architectures": ["FCOS"],
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
    }


def _card(name: str, found: Weights, licence: str | None) -> str:
    from huggingface_hub import ModelCardData

    names = found.class_names or ()
    head = ModelCardData(
        license=licence, library_name="fcos_d2", pipeline_tag="object-detection", tags=["fcos", "detectron2"]
    )
    stored = found.extra.get("thresholds")
    scores = zip(names, stored["values"]) if isinstance(stored, Mapping) else ()
    rows = "".join(f"| {label} | {score:.2f} |\n" for label, score in scores)
    table = f"\n## Score thresholds\n\n| class | score |\n| --- | --- |\n{rows}" if rows else ""
    shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
    return _CARD.format(head=head.to_yaml(), name=name, count=len(names), classes=shown, thresholds=table)
