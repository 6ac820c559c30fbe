"""What a row of the zoo says, and the families that rows belong to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Variant:
    """A row of the zoo.

    Attributes:
        name: of the published config or model.
        family: who published it; also the folder of its config.
        recipe, backbone, schedule: what `compose` puts together.
        ap: box AP on COCO minival / val2017 as published, in percent; `None` if there is none.
        ap_test_dev: the same on test-dev.
        source: where name and numbers come from.
        aliases: other published names of the same, such as that of its config file.
    """

    name: str
    family: str
    recipe: str
    backbone: str
    schedule: str
    ap: float | None = None
    ap_test_dev: float | None = None
    source: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        return f"{self.family}/{self.name}"

    @property
    def config(self) -> Path:
        """Its LazyConfig file, relative to the config folder."""
        return Path(self.family, f"{self.name}.py")

    @property
    def yaml(self) -> Path:
        """Its yacs twin, relative to the config folder."""
        return Path("yaml", self.family, f"{self.name}.yaml")


@dataclass(frozen=True)
class Family:
    """Who published a group of variants.

    Attributes:
        title: how to call it.
        repository: where it is, or "" for this project.
        licence: of the publisher's code; no weights are part of this project, and those you download are under their
            publisher's terms.
    """

    title: str
    repository: str
    licence: str


FAMILIES: dict[str, Family] = {
    "fcos": Family("FCOS, original and improved", "tianzhi0549/FCOS", "BSD 2-clause, non-commercial"),
    "fcos_plus": Family("FCOS_PLUS", "yqyao/FCOS_PLUS", "BSD 2-clause, non-commercial"),
    "adelaidet": Family("AdelaiDet", "aim-uofa/AdelaiDet", "BSD 2-clause, non-commercial"),
    "detectron2": Family("Detectron2", "facebookresearch/detectron2", "Apache-2.0"),
    "torchvision": Family("torchvision", "pytorch/vision", "BSD 3-clause"),
    "mmdet": Family("MMDetection", "open-mmlab/mmdetection", "Apache-2.0"),
    "vovnet": Family("VoVNet-FCOS", "vov-net/VoVNet-FCOS", "BSD 2-clause, non-commercial"),
    "hrnet": Family("HRNet-FCOS", "HRNet/HRNet-FCOS", "BSD 2-clause, non-commercial"),
    "nas_fcos": Family("NAS-FCOS", "Lausannen/NAS-FCOS", "BSD 2-clause; academic use, says its README"),
    "fad": Family("FAD", "msight-tech/research-fad", "CC BY-NC 4.0, non-commercial"),
    "small": Family("Small networks, from scratch", "", "Apache-2.0"),
    "proposals": Family("Region proposals and two-stage detectors", "", "Apache-2.0"),
}
