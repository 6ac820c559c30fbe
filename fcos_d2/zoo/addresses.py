"""Published weights that training starts from: where they lie, what their bytes are, under which licence; data only.

Names are those of configs: an address, or a name of torchvision's, OpenMMLab's or Detectron2's table. The detectors'
rows, of the same class, are in `checkpoints`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlparse

from .licences import LICENCES, Licence

__all__ = ["ADDRESSES", "Address"]


@dataclass(frozen=True)
class Address:
    """A published file.

    Attributes:
        url: address; the first to be asked.
        sha256: leading hexadecimal digits of the digest of its bytes, as many as anybody states: torchvision and
            OpenMMLab state eight in the file's name, most files of Detectron2, Dropbox and Hugging Face have none.
        licence: row of `LICENCES`: of the weights, as far as their publisher says it.
        backbone: it holds a network below the pyramid alone, which detects nothing.
        mirrors: addresses of the same bytes.
        size: bytes; 0 if unknown.
        exact: whether the size is stated, not estimated.
        layout: what the file holds.
        state: "open": a program can fetch it; "browser": only a person can; "gone": nobody can.
        reason: for the state, with what is known of outages.
        name: of the file, where the address does not tell.
    """

    url: str
    sha256: str = ""
    licence: str = ""
    backbone: bool = True
    mirrors: tuple[str, ...] = ()
    size: int = 0
    exact: bool = False
    layout: str = "state dict"
    state: str = "open"
    reason: str = ""
    name: str = ""

    @property
    def urls(self) -> tuple[str, ...]:
        """All addresses that a program can fetch it from; none of a dead row."""
        return (self.url, *self.mirrors) if self.state == "open" else ()

    @property
    def is_dead(self) -> bool:
        """Whether no program can fetch it: the address is gone, or is for browsers."""
        return not self.urls

    @property
    def terms(self) -> Licence:
        return LICENCES[self.licence]

    @property
    def file(self) -> str:
        """Name of the file."""
        return self.name or PurePosixPath(urlparse(self.url).path).name


_FACEBOOK = "https://dl.fbaipublicfiles.com"
_PYTORCH = "https://download.pytorch.org/models"
_OPENMMLAB = "https://download.openmmlab.com/pretrain/third_party"
_DROPBOX = "https://dl.dropbox.com/s"
_DLA = "dla34-ba72cf86.pth"
_CC_BY_SA, _BSD_3, _NON_COMMERCIAL = "CC BY-SA 3.0", "BSD-3-Clause", "CC BY-NC 4.0"
_OUTAGES = "unreachable for days in August 2025 and June 2026"
_RESNET_101 = Address(
    f"{_PYTORCH}/resnet101-63fe2227.pth", "63fe2227b86e8f1f2063f43a75c84d195911b6a0eace650907dd3dc62dd49a0a", _BSD_3
)
_TORCHVISION_MOBILENET = Address(
    f"{_PYTORCH}/mobilenet_v2-b0353104.pth", "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889", _BSD_3,
    size=14_212_972, exact=True,
)  # fmt: skip
# The original's file, of tonylins/pytorch-mobilenet-v2; torchvision's is another training.
_MOBILENET = Address(
    "https://huggingface.co/tianzhi/FCOS/resolve/main/mobilenet_v2-ecbe2b5.pth",
    "ecbe2b568c8602549fa9e1d5833c63848f490a48d92e5d224d1eb2063e152cf8", "Apache-2.0", size=14_205_652, exact=True,
)  # fmt: skip


def _openmmlab(name: str, digits: str, licence: str = "") -> Address:
    return Address(f"{_OPENMMLAB}/{name}-{digits}.pth", digits, licence, reason=_OUTAGES)


ADDRESSES: dict[str, Address] = {
    # Facebook: torchvision's files are those of the first training ("V1").
    **{
        f"detectron2://ImageNetPretrained/{name}.pkl": Address(
            f"{_FACEBOOK}/detectron2/ImageNetPretrained/{name}.pkl", licence=_CC_BY_SA, layout="Detectron2's pickle"
        )
        for name in ("MSRA/R-50", "MSRA/R-101", "FAIR/X-101-32x8d", "torchvision/R-50")
    },
    # Never published there; these are the weights that it would hold.
    "detectron2://ImageNetPretrained/torchvision/R-101.pkl": _RESNET_101,
    **{
        f"catalog://ImageNetPretrained/FAIR/{name}": Address(
            f"{_FACEBOOK}/detectron/ImageNetPretrained/{folder}/{name}.pkl", licence=_CC_BY_SA, layout="Caffe2's pickle"
        )
        for name, folder in (("X-101-32x8d", "20171220"), ("X-101-64x4d", "FBResNeXt"))
    },
    "torchvision://resnet18": Address(
        f"{_PYTORCH}/resnet18-f37072fd.pth", "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec", _BSD_3,
        size=46_830_571, exact=True,
    ),
    "torchvision://resnet50": Address(
        f"{_PYTORCH}/resnet50-0676ba61.pth", "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a", _BSD_3,
        size=102_530_333, exact=True,
    ),
    "torchvision://resnet101": _RESNET_101,
    "torchvision://mobilenet_v2": _TORCHVISION_MOBILENET,
    _TORCHVISION_MOBILENET.url: _TORCHVISION_MOBILENET,
    _MOBILENET.url: _MOBILENET,
    # OpenMMLab.
    "open-mmlab://resnext101_64x4d": _openmmlab("resnext101_64x4d", "ee2c6f71"),
    "open-mmlab://detectron2/resnet50_caffe": _openmmlab("resnet50_msra", "5891d200"),
    "open-mmlab://detectron2/resnet101_caffe": _openmmlab("resnet101_msra", "6cc46731"),
    "open-mmlab://detectron/resnet50_caffe": _openmmlab("resnet50_caffe", "788b5fa3"),
    "open-mmlab://detectron/resnet101_caffe": _openmmlab("resnet101_caffe", "3ad79236"),
    **{
        name: _openmmlab(f"hrnetv2_w{width}", digits, "MIT")
        for width, digits in ((18, "00eb2006"), (32, "dc9eeb4f"), (40, "ed0b031c"))
        for name in (f"{_OPENMMLAB}/hrnetv2_w{width}-{digits}.pth", f"open-mmlab://msra/hrnetv2_w{width}")
    },
    # The author's host has been gone since 2025; OpenVINO keeps the same bytes.
    f"http://dl.yf.io/dla/models/imagenet/{_DLA}": Address(
        f"https://storage.openvinotoolkit.org/repositories/open_model_zoo/public/2022.1/dla-34/{_DLA}",
        "ba72cf86426e6333d9e8c6c7a8cae5549879212e48ae3aaad4bc8a7d009c34e1", _BSD_3, size=63_228_658, exact=True,
        mirrors=(f"https://github.com/Khushal-B/CLRerNet_Improved/releases/download/v0.1/{_DLA}",),
    ),
    **{
        f"{_DROPBOX}/{name}": Address(f"{_DROPBOX}/{name}?dl=1", licence=licence)
        for name, licence in (
            ("s7f4vyfybyc9qpr/vovnet39_statedict_norm.pth", "vovnet"),
            ("b826phjle6kbamu/vovnet57_statedict_norm.pth", "vovnet"),
            ("qtly316zv1isn0t/vovnet93_statedict_norm.pth.tar", "vovnet"),
            ("8h5ybmi4ftbcom0/vovnet19_ese_slim_detectron2.pth", _NON_COMMERCIAL),
            ("q98pypf96rhtd8y/vovnet39_ese_detectron2.pth", _NON_COMMERCIAL),
            ("8xl0cb3jj51f45a/vovnet57_ese_detectron2.pth", _NON_COMMERCIAL),
            ("1mlv31coewx8trd/vovnet99_ese_detectron2.pth", _NON_COMMERCIAL),
        )
    },
}  # fmt: skip
