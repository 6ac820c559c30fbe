"""What an import did, as data and as text."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from .rules import some


@dataclass
class Report:
    """The account of one import or export.

    Attributes:
        file: what was read.
        family: whose names were read or written.
        same_names: families whose files have the same names, so that only the caller can tell them apart.
        variants: published variants whose model wants exactly these tensors.
        config_name: the variant that was chosen; `None` where nothing decides between several.
        chosen_by: why that one.
        num_classes: K of the result.
        tensors: number of tensors in the result.
        renamed: number of tensors whose name changed.
        done: changes to the numbers, a sentence each; empty if the tensors are used as they are.
        facts: what else one has to know to use them, a sentence each.
        warnings: what may make the result wrong, a sentence each.
        ignored: names in the file that no model needs.
        missing, left_over: names that the model lacks, and names that it does not know.
        initial: names in the model that keep their initial values.
        class_names: of the classes, where the file says them.
        other_recipe: what the model does otherwise than the one that the weights were trained with; empty if nothing.
    """

    file: str
    family: str
    same_names: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    config_name: str | None = None
    chosen_by: str = ""
    num_classes: int = 0
    tensors: int = 0
    renamed: int = 0
    done: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    initial: list[str] = field(default_factory=list)
    class_names: tuple[str, ...] | None = None
    other_recipe: str = ""

    def adopt(self, part: Report) -> None:
        """Take over the account of the conversion that was a part of this."""
        for name, value in vars(part).items():
            if value and name not in ("file", "class_names"):
                setattr(self, name, [*self.facts, *value] if name == "facts" else value)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, e.g. for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        classes = f", {self.num_classes} classes" if self.num_classes else ""
        lines = [f"{self.file}: {self.family}, {self.tensors} tensors{classes}"]
        if self.same_names:
            lines.append(f"  names: those of {' and '.join(self.same_names)} are the same")
        if self.config_name:
            lines.append(f"  config: {self.config_name} ({self.chosen_by})")
        elif self.variants:
            lines.append(f"  config: not decided, all of these fit: {', '.join(self.variants)}")
        if self.config_name and len(self.variants) > 1:
            others = [name for name in self.variants if name != self.config_name]
            lines.append(f"  fits also: {', '.join(others)}")
        counts = f"missing {len(self.missing)}, left over {len(self.left_over)}"
        lines.append(f"  renamed: {self.renamed} of {self.tensors}; {counts}")
        lines += [f"  changed: {step}" for step in self.done or ["nothing, the tensors are used as they are"]]
        if self.ignored:
            lines.append(f"  not needed: {some(self.ignored)}")
        if self.initial:
            tensors = f"{len(self.initial)} tensors of the model keep theirs ({some(self.initial)})"
            lines.append(f"  initial values: {tensors}")
        lines += [f"  note: {fact}" for fact in self.facts]
        lines += [f"  warning: {text}" for text in self.warnings]
        return "\n".join(lines)
