"""Published weights that training starts from: where they lie, what their bytes are, under which licence; data only.

Names are those of configs: an address, or a name of torchvision's, OpenMMLab's or Detectron2's table. "sha256" are the
leading digits that the publisher states (for torchvision and OpenMMLab in the file's name), or all of them where they
are known; most files of Detectron2 and Dropbox have none.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ADDRESSES", "Address"]


@dataclass(frozen=True)
class Address:
    """Where a file lies.

    Attributes:
        url: https address.
        sha256: leading hexadecimal digits of the digest of its bytes; empty if nobody states them.
        licence: of the weights, as far as their publisher says it; empty if he does not.
        backbone: it holds a network below the pyramid alone, which detects nothing.
    """

    url: str
    sha256: str = ""
    licence: str = ""
    backbone: bool = True


_FACEBOOK = "https://dl.fbaipublicfiles.com"
_PYTORCH = "https://download.pytorch.org/models"
_OPENMMLAB = "https://download.openmmlab.com/pretrain/third_party"
_DROPBOX = "https://dl.dropbox.com/s"
_DLA = "dla34-ba72cf86.pth"
_CC_BY_SA, _BSD_3, _NON_COMMERCIAL = "CC BY-SA 3.0", "BSD-3-Clause", "CC BY-NC 4.0"
_RESNET_101 = Address(
    f"{_PYTORCH}/resnet101-63fe2227.pth", "63fe2227b86e8f1f2063f43a75c84d195911b6a0eace650907dd3dc62dd49a0a", _BSD_3
)
_MOBILENET = Address(
    f"{_PYTORCH}/mobilenet_v2-b0353104.pth", "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889", _BSD_3
)

ADDRESSES: dict[str, Address] = {
    # Facebook: torchvision's files are those of the first training ("V1").
    **{
        f"detectron2://ImageNetPretrained/{name}.pkl": Address(
            f"{_FACEBOOK}/detectron2/ImageNetPretrained/{name}.pkl", licence=_CC_BY_SA
        )
        for name in ("MSRA/R-50", "MSRA/R-101", "FAIR/X-101-32x8d", "torchvision/R-50")
    },
    # Never published there; these are the weights that it would hold.
    "detectron2://ImageNetPretrained/torchvision/R-101.pkl": _RESNET_101,
    "catalog://ImageNetPretrained/FAIR/X-101-32x8d": Address(
        f"{_FACEBOOK}/detectron/ImageNetPretrained/20171220/X-101-32x8d.pkl", licence=_CC_BY_SA
    ),
    "catalog://ImageNetPretrained/FAIR/X-101-64x4d": Address(
        f"{_FACEBOOK}/detectron/ImageNetPretrained/FBResNeXt/X-101-64x4d.pkl", licence=_CC_BY_SA
    ),
    "torchvision://resnet18": Address(
        f"{_PYTORCH}/resnet18-f37072fd.pth", "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec", _BSD_3
    ),
    "torchvision://resnet50": Address(
        f"{_PYTORCH}/resnet50-0676ba61.pth", "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a", _BSD_3
    ),
    "torchvision://resnet101": _RESNET_101,
    "torchvision://mobilenet_v2": _MOBILENET,
    _MOBILENET.url: _MOBILENET,
    # OpenMMLab.
    "open-mmlab://resnext101_64x4d": Address(f"{_OPENMMLAB}/resnext101_64x4d-ee2c6f71.pth", "ee2c6f71"),
    "open-mmlab://detectron2/resnet50_caffe": Address(f"{_OPENMMLAB}/resnet50_msra-5891d200.pth", "5891d200"),
    "open-mmlab://detectron2/resnet101_caffe": Address(f"{_OPENMMLAB}/resnet101_msra-6cc46731.pth", "6cc46731"),
    "open-mmlab://detectron/resnet50_caffe": Address(f"{_OPENMMLAB}/resnet50_caffe-788b5fa3.pth", "788b5fa3"),
    "open-mmlab://detectron/resnet101_caffe": Address(f"{_OPENMMLAB}/resnet101_caffe-3ad79236.pth", "3ad79236"),
    **{
        name: Address(f"{_OPENMMLAB}/hrnetv2_w{width}-{digits}.pth", digits, "MIT")
        for width, digits in ((18, "00eb2006"), (32, "dc9eeb4f"), (40, "ed0b031c"))
        for name in (f"{_OPENMMLAB}/hrnetv2_w{width}-{digits}.pth", f"open-mmlab://msra/hrnetv2_w{width}")
    },
    # The author's host has been gone since 2025; OpenVINO keeps the same bytes.
    f"http://dl.yf.io/dla/models/imagenet/{_DLA}": Address(
        f"https://storage.openvinotoolkit.org/repositories/open_model_zoo/public/2022.1/dla-34/{_DLA}",
        "ba72cf86426e6333d9e8c6c7a8cae5549879212e48ae3aaad4bc8a7d009c34e1",
        _BSD_3,
    ),
    **{
        f"{_DROPBOX}/{name}": Address(f"{_DROPBOX}/{name}", licence=licence)
        for name, licence in (
            ("s7f4vyfybyc9qpr/vovnet39_statedict_norm.pth", "BSD-2-Clause text, for non-commercial purposes"),
            ("b826phjle6kbamu/vovnet57_statedict_norm.pth", "BSD-2-Clause text, for non-commercial purposes"),
            ("qtly316zv1isn0t/vovnet93_statedict_norm.pth.tar", "BSD-2-Clause text, for non-commercial purposes"),
            ("8h5ybmi4ftbcom0/vovnet19_ese_slim_detectron2.pth", _NON_COMMERCIAL),
            ("q98pypf96rhtd8y/vovnet39_ese_detectron2.pth", _NON_COMMERCIAL),
            ("8xl0cb3jj51f45a/vovnet57_ese_detectron2.pth", _NON_COMMERCIAL),
            ("1mlv31coewx8trd/vovnet99_ese_detectron2.pth", _NON_COMMERCIAL),
        )
    },
}
