"""Tables and figures of the paper that can be made on other data, with the numbers that it prints, from 0 to 1.

They are numbered as in the first arXiv versions of arXiv:1904.01355, which have nine tables; the version of ICCV 2019
has fewer, and in part others. Its Tables 3, 4 and 7 compare trainings on COCO, which is no analysis of one detector.
A number is `None` where it could not be confirmed in the paper's text or where the paper gives none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["DETECTOR", "LABELS", "NEEDS", "PAPER", "PROPOSER", "Published", "Row"]

LABELS, DETECTOR, PROPOSER = "labels", "detector", "proposals"
# What an analysis is made of -> the same in words.
NEEDS: Mapping[str, str] = {
    LABELS: "labels alone: --data",
    DETECTOR: "a detector: --weights and --data",
    PROPOSER: "a detector that proposes regions: --weights and --data",
}

Row = tuple[float | None, ...]


@dataclass(frozen=True)
class Published:
    """A table or a figure.

    Attributes:
        title: what it shows.
        setting: what its numbers come from.
        needs: a key of `NEEDS`.
        columns: names of its numbers.
        rows: label -> numbers, in the order of `columns`; none where the paper gives none.
        section: of `fcos report`, that shows the like; "" where it is no section.
        pictures: names of the pictures of that section that are the figure; all where there are none.
        same: label of a row here -> label of the row that it is to be compared with.
        method: what is done in another way here, in sentences.
    """

    title: str
    setting: str
    needs: str
    columns: tuple[str, ...] = ()
    rows: Mapping[str, Row] = field(default_factory=dict)
    section: str = ""
    pictures: tuple[str, ...] = ()
    same: Mapping[str, str] = field(default_factory=dict)
    method: tuple[str, ...] = ()


_TRAINED = "COCO minival, 5,000 images; ResNet-50-FPN, 90,000 iterations of 16 images, 800 px"
_SIX = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
_SAMPLED = "center sampling"

_TABLE_1 = Published(
    "Best possible recall", "COCO minival, 5,000 images, 800 px", LABELS, ("best possible recall",),
    {
        "RetinaNet with FPN, no low-quality matches": (0.8682,),
        "RetinaNet with FPN, low-quality matches from 0.4": (0.9092,),
        "RetinaNet with FPN, all low-quality matches": (0.9923,),
        "FCOS, P4 alone": (0.9555,), "FCOS with FPN": (0.9840,),
        f"FCOS, P4 alone, {_SAMPLED}": (None,), f"FCOS with FPN, {_SAMPLED}": (None,),
    },
    same={
        "P4 alone": "FCOS, P4 alone", "P3 to P7": "FCOS with FPN",
        f"P4 alone, {_SAMPLED}": f"FCOS, P4 alone, {_SAMPLED}", f"P3 to P7, {_SAMPLED}": f"FCOS with FPN, {_SAMPLED}",
    },
    method=(
        "RetinaNet's anchors are not counted here.",
        "Center sampling came after this table: the numbers that arXiv:2006.09214 gives for it are not confirmed.",
    ),
)  # fmt: skip
_TABLE_2 = Published(
    "Ambiguous locations, of all positives", "COCO minival, 5,000 images, 800 px", LABELS,
    ("ambiguous", "ambiguous across classes"),
    {
        "without FPN (P4)": (0.2316, 0.1784), "with FPN": (0.0714, 0.0375),
        f"without FPN (P4), {_SAMPLED}": (None, None), f"with FPN, {_SAMPLED}": (None, None),
    },
    same={
        "P4 alone": "without FPN (P4)", "P3 to P7": "with FPN",
        f"P4 alone, {_SAMPLED}": f"without FPN (P4), {_SAMPLED}", f"P3 to P7, {_SAMPLED}": f"with FPN, {_SAMPLED}",
    },
    method=_TABLE_1.method[1:],
)  # fmt: skip
_TABLE_5 = Published(
    "What centerness is worth", _TRAINED, DETECTOR, _SIX,
    {
        "none": (0.338, 0.545, 0.350, 0.206, 0.381, 0.432),
        "computed from the predicted box": (0.331, 0.531, 0.343, 0.204, 0.369, 0.424),
        "predicted by the branch": (0.366, 0.560, 0.389, 0.209, 0.403, 0.472),
        "the truth in its place": (None,) * 6,
        "ICCV 2019, Table 4: none": (0.335, 0.526, 0.352, 0.208, 0.385, 0.426),
        "ICCV 2019, Table 4: regression": (0.335, 0.524, 0.351, 0.208, 0.378, 0.428),
        "ICCV 2019, Table 4: branch": (0.371, 0.559, 0.398, 0.213, 0.410, 0.478),
    },
    section="rankings",
    same={
        "none": "none", "from the regression": "computed from the predicted box",
        "predicted centerness": "predicted by the branch", "predicted iou": "predicted by the branch",
        "oracle": "the truth in its place",
    },
    method=(
        "The paper's row without centerness is a training without the branch; here one network is ranked without it.",
        "The paper tells of a detector with the true centerness in its text; that number is not confirmed.",
    ),
)  # fmt: skip
_TABLE_6 = Published(
    "Images with overlapping objects",
    f"{_TRAINED}; the 3,986 images with overlapping boxes: 35,058 boxes, of them 30,625 overlapping", DETECTOR,
    ("AP", "AP50", "AP75"),
    {
        "RetinaNet": (0.337, 0.529, 0.362), "RetinaNet with GN": (0.342, 0.544, 0.365),
        "FCOS (first row)": (0.344, 0.539, 0.361), "FCOS (second row)": (0.347, 0.543, 0.366),
    },
    section="overlap", same={"with overlapping objects": "FCOS (second row)"},
    method=("The paper gives no numbers for the other images.", "RetinaNet is not trained here."),
)  # fmt: skip
_TABLE_8 = Published(
    "FCOS as a region proposal network", "COCO minival, 5,000 images; ResNet-50-FPN", PROPOSER,
    ("AR@100", "AR@1000"),
    {
        "RPN with FPN (Detectron), 200K samples": (0.435, 0.573), "RPN with FPN, 200K samples": (0.433, 0.569),
        "RPN with FPN and GN, 200K samples": (0.447, 0.569),
        "FCOS without centerness, 66K samples": (0.480, 0.593), "FCOS, 66K samples": (0.528, 0.603),
    },
    same={
        "RPN": "RPN with FPN, 200K samples", "FCOS without centerness": "FCOS without centerness, 66K samples",
        "FCOS": "FCOS, 66K samples",
    },
    method=(
        "The original counts boxes a pixel larger than here. Both match one proposal to each object; an image without "
        "proposals counts here.",
    ),
)  # fmt: skip
_TABLE_9 = Published(
    "Detection with all classes taken for one", _TRAINED, DETECTOR, ("AP", "AP50", "AP75", "AP90"),
    {
        "RetinaNet": (0.395, 0.636, 0.418, 0.106), "RetinaNet with GN": (0.400, 0.645, 0.422, 0.104),
        "FCOS": (0.405, 0.647, 0.426, 0.131),
    },
    section="one-class", same={"one class": "FCOS"},
    method=("RetinaNet is not trained here.", "The mean of the classes is not in the paper's table."),
)  # fmt: skip


def _curve(column: str, iou: str, picture: str) -> Published:
    """One of Figs. 4 to 6, whose areas Table 9 has."""
    place = _TABLE_9.columns.index(column)
    return Published(
        f"Precision and recall with all classes taken for one, IoU {iou}", _TRAINED, DETECTOR, (column, "most recall"),
        {label: (row[place], None) for label, row in _TABLE_9.rows.items()},
        section="one-class", pictures=(picture,), same=_TABLE_9.same,
        method=(
            f"The paper shows the curves as a picture; {column} is the area under them, from its Table 9.",
            "The largest recall is given nowhere; the paper says that it stays far below 0.9.",
            "RetinaNet is not trained here.",
        ),
    )  # fmt: skip


PAPER: Mapping[str, Published] = {
    "table1": _TABLE_1, "table2": _TABLE_2, "table5": _TABLE_5, "table6": _TABLE_6, "table8": _TABLE_8,
    "table9": _TABLE_9,
    "figure3": Published(
        "Centerness over pictures", "a drawing", DETECTOR, section="centerness",
        method=(
            "The paper draws the centerness of one object; here it is that of the network, beside what it should be.",
            "The paper gives no numbers.",
        ),
    ),
    "figure4": _curve("AP50", "0.5", "precision-recall-50"), "figure5": _curve("AP75", "0.75", "precision-recall-75"),
    "figure6": _curve("AP90", "0.9", "precision-recall-90"),
    "figure7": Published(
        "Score against IoU, without and with centerness", _TRAINED, DETECTOR, section="score-iou",
        method=("The paper shows it as a picture and gives no numbers.",),
    ),
}  # fmt: skip
