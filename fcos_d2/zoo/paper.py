"""Tables and figures of the paper (arXiv:1904.01355) that can be made on other data, with the numbers it prints.

The numbering is that of its first arXiv versions, which have nine tables; numbers are shares from 0 to 1. The version of
ICCV 2019 has fewer tables, and in some other numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["PAPER", "Published"]

_MINIVAL = "COCO minival, ResNet-50-FPN, 90,000 iterations, 800 px"


@dataclass(frozen=True)
class Published:
    """A table or a figure.

    Attributes:
        title: what it shows.
        setting: what its numbers come from.
        section: of the report, that shows the like; "" where no detector is needed or several trainings are.
        columns: of the numbers, by our names.
        rows: label -> numbers, in the order of `columns`; none for figures.
        same: our label -> the label of the row that it is to be compared with.
        differs: what is not the same here, in sentences.
    """

    title: str
    setting: str
    section: str
    columns: tuple[str, ...] = ()
    rows: Mapping[str, tuple[float, ...]] | None = None
    same: Mapping[str, str] | None = None
    differs: tuple[str, ...] = ()


_SIX = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
_CURVES = "Precision and recall with all classes taken for one, at IoU"

PAPER: Mapping[str, Published] = {
    "table1": Published(
        "Best possible recall", "COCO minival, 800 px", "", ("best_possible_recall",),
        {
            "RetinaNet, no low-quality matches": (0.8682,), "RetinaNet, low-quality matches from 0.4": (0.9092,),
            "RetinaNet, all low-quality matches": (0.9923,), "FCOS, P4 alone": (0.9555,), "FCOS with FPN": (0.9840,),
        },
        {"P4 alone": "FCOS, P4 alone", "P3 to P7": "FCOS with FPN"},
        ("No training is needed, so only the data differ.",),
    ),
    "table2": Published(
        "Ambiguous locations, of all positives", "COCO minival, 800 px", "", ("ambiguous", "ambiguous_across_classes"),
        {"without FPN (P4)": (0.2316, 0.1784), "with FPN": (0.0714, 0.0375)},
        {"P4 alone": "without FPN (P4)", "P3 to P7": "with FPN"},
        ("No training is needed, so only the data differ.",),
    ),
    "table5": Published(
        "What centerness is worth", _MINIVAL, "rankings", _SIX,
        {
            "none": (0.338, 0.545, 0.350, 0.206, 0.381, 0.432),
            "computed from the predicted box": (0.331, 0.531, 0.343, 0.204, 0.369, 0.424),
            "predicted by the branch": (0.366, 0.560, 0.389, 0.209, 0.403, 0.472),
        },
        {"none": "none", "from the regression": "computed from the predicted box",
         "predicted centerness": "predicted by the branch", "predicted iou": "predicted by the branch"},
        ("The paper's row 'none' is a training without the branch; here the same network is ranked without it.",
         "In the version of ICCV 2019 (its Table 4) the three rows have AP 0.335, 0.335 and 0.371."),
    ),
    "table6": Published(
        "Images with overlapping objects", f"{_MINIVAL}; 3,986 images, 35,058 objects, of them 30,625 overlapping",
        "overlap", ("AP", "AP50", "AP75"),
        {
            "RetinaNet": (0.337, 0.529, 0.362), "RetinaNet with GN": (0.342, 0.544, 0.365),
            "FCOS, first row": (0.344, 0.539, 0.361), "FCOS, second row": (0.347, 0.543, 0.366),
        },
        {"with overlapping objects": "FCOS, second row", "all": "", "without": ""},
        ("The paper gives no numbers for the other images.",),
    ),
    "table9": Published(
        "Detection with all classes taken for one", _MINIVAL, "one-class", ("AP", "AP50", "AP75", "AP90"),
        {
            "RetinaNet": (0.395, 0.636, 0.418, 0.106), "RetinaNet with GN": (0.400, 0.645, 0.422, 0.104),
            "FCOS": (0.405, 0.647, 0.426, 0.131),
        },
        {"one class": "FCOS", "mean of the classes": ""},
        ("The paper trains RetinaNet as well; here is one detector.",),
    ),
    "figure3": Published("Centerness over pictures", "a drawing", "centerness"),
    "figure4": Published(f"{_CURVES} 0.5", _MINIVAL, "one-class"),
    "figure5": Published(f"{_CURVES} 0.75", _MINIVAL, "one-class"),
    "figure6": Published(f"{_CURVES} 0.9", _MINIVAL, "one-class"),
    "figure7": Published(
        "Score against IoU, without and with centerness", _MINIVAL, "score-iou",
        differs=("The paper shows it as a picture, and gives no numbers.",),
    ),
}  # fmt: skip
