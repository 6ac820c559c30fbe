"""Under which terms published weights may be used, as far as their publishers say it; data only."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LICENCES", "Licence"]


@dataclass(frozen=True)
class Licence:
    """Terms of weights.

    Attributes:
        name: short, for tables.
        says: what the publisher says, in a sentence; empty where the name says it.
        source: where.
        restricted: not everybody may use the weights for everything.
    """

    name: str
    says: str = ""
    source: str = ""
    restricted: bool = False

    def __str__(self) -> str:
        return self.name


_FORKS = (
    "Non-commercial use only (BSD 2-clause text); nothing else is said of the weights. Commercial use: ask the authors"
)

LICENCES: dict[str, Licence] = {
    "": Licence("not stated"),
    "MIT": Licence("MIT"),
    "Apache-2.0": Licence("Apache-2.0"),
    "BSD-3-Clause": Licence("BSD-3-Clause"),
    "CC BY-SA 3.0": Licence("CC BY-SA 3.0", source="facebookresearch/detectron2, MODEL_ZOO.md"),
    "CC BY-NC 4.0": Licence(
        "CC BY-NC 4.0", "Non-commercial use only", "youngwanLEE/vovnet-detectron2, LICENSE", restricted=True
    ),
    "fcos": Licence("non-commercial", _FORKS, "tianzhi0549/FCOS, LICENSE", restricted=True),
    "fcos_plus": Licence("non-commercial", _FORKS, "yqyao/FCOS_PLUS, LICENSE", restricted=True),
    "vovnet": Licence("non-commercial", _FORKS, "vov-net/VoVNet-FCOS, LICENSE", restricted=True),
    "hrnet": Licence("non-commercial", _FORKS, "HRNet/HRNet-FCOS, LICENSE", restricted=True),
    "adelaidet": Licence("non-commercial", _FORKS, "aim-uofa/AdelaiDet, LICENSE", restricted=True),
    "nas_fcos": Licence(
        "academic use", "Academic use, else ask the authors (README); the LICENSE is a plain BSD 2-clause",
        "Lausannen/NAS-FCOS, README.md", restricted=True,
    ),
    "torchvision": Licence(
        "BSD-3-Clause", "The code's; weights may have terms that derive from the data they were trained on (COCO)",
        "pytorch/vision, README.md",
    ),
    "openmmlab": Licence(
        "not stated", "The code is Apache-2.0; of the weights nothing is said", "open-mmlab/mmdetection, issue 11484"
    ),
}  # fmt: skip
