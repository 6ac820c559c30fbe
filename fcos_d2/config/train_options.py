"""The options of training: `cfg.train` as a tree of frozen dataclasses.

An unknown key, a value of another type and a value out of range are errors, wherever they come from: a file, an
override, or code. Fields marked with a * are not Detectron2's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, TypeVar, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import FcosError
from .overrides import KINDS, suggestion
from .plain import dotted, nodes

__all__ = [
    "TRAIN_OPTIONS", "AmpOptions", "CheckpointerOptions", "DdpOptions", "EarlyStopOptions", "EmaOptions", "TrainOptions"
]  # fmt: skip


def _option(default: Any, **rules: Any) -> Any:
    """A field with rules for its value.

    Args:
        default: what the option is unless a config says otherwise.
        rules: `least` and `below` of a number, `choices` of a string; `written=False` leaves the default out of
            `as_dict`, so that configs do not list it.
    """
    return field(default=default, metadata=rules)


@dataclass(frozen=True)
class CheckpointerOptions:
    """When to write a checkpoint to resume from, and how many of them to keep."""

    period: int = _option(5000, least=1)  # iterations
    max_to_keep: int | None = _option(100, least=1)  # None: all


@dataclass(frozen=True)
class AmpOptions:
    """Automatic mixed precision."""

    enabled: bool = False
    dtype: str = _option("auto", choices=("auto", "fp16", "bf16"))  # * auto: fp16 on CUDA, bf16 on the CPU


@dataclass(frozen=True)
class EmaOptions:
    """* Moving average of the weights, used for evaluation."""

    enabled: bool = False
    decay: float = _option(0.9998, least=0, below=1)


@dataclass(frozen=True)
class EarlyStopOptions:
    """* Training ends after so many evaluations without improvement; 0: never."""

    patience: int = _option(0, least=0)


@dataclass(frozen=True)
class DdpOptions:
    """Arguments of Detectron2's `create_ddp_model`, that is of PyTorch's `DistributedDataParallel`."""

    broadcast_buffers: bool = False
    find_unused_parameters: bool = False
    fp16_compression: bool = False
    device_ids: tuple[int, ...] | None = _option(None, written=False)
    bucket_cap_mb: float | None = _option(None, least=0, written=False)
    gradient_as_bucket_view: bool = _option(False, written=False)
    static_graph: bool = _option(False, written=False)


@dataclass(frozen=True)
class TrainOptions:
    """`cfg.train` as `LazyTrainer` reads it; a config states what it wants otherwise."""

    output_dir: str = "./output"
    init_checkpoint: str = ""  # a detector to fine-tune, or ImageNet weights; empty: from scratch
    # * of another detector's class layer: "check" the names, keep the channels of those that "match", "drop" the layer,
    # or "keep" it
    init_classes: str = _option("check", choices=("check", "match", "drop", "keep"))
    # * evaluate weights that were trained for another recipe; training from them only warns
    force_recipe: bool = _option(False, written=False)
    max_iter: int = _option(90000, least=1)
    eval_period: int = _option(5000, least=0)  # iterations; 0: at the end only
    log_period: int = _option(20, least=1)
    checkpointer: CheckpointerOptions = CheckpointerOptions()
    device: str = "cpu"
    seed: int = -1  # negative: another one each time
    amp: AmpOptions = AmpOptions()
    ema: EmaOptions = EmaOptions()
    grad_accumulation: int = _option(1, least=1)  # * parts that each batch is computed in; the result is the same
    # * what is computed twice to save memory: "backbone", or "all" with the head
    gradient_checkpointing: str = _option("none", choices=("none", "backbone", "all"))
    channels_last: bool = False  # * memory format of weights and maps; on the CPU always
    clip_grad: float = _option(0.0, least=0)  # * largest norm of the gradient; 0: not clipped
    early_stop: EarlyStopOptions = EarlyStopOptions()
    best_metric: str = "bbox/AP"  # * decides which weights are model_best.pth
    # * draw curves.png, confusion.png, misses.jpg and hits.jpg after evaluations; `fcos train` and `configure` set it
    pictures: bool = False
    # * where the course of training goes besides metrics.json and TensorBoard
    loggers: tuple[str, ...] = _option((), choices=("wandb", "mlflow"))
    ddp: DdpOptions = DdpOptions()
    # What Detectron2's `default_setup` reads besides.
    cudnn_benchmark: bool = _option(False, written=False)
    float32_precision: str = _option("", choices=("", "highest", "high", "medium"), written=False)

    NULL_STRINGS: ClassVar[tuple[str, ...]] = ("init_checkpoint",)  # where null says the same as ""

    @classmethod
    def of(cls, node: DictConfig | Mapping[str, Any], origin: str = "The config") -> TrainOptions:
        """Read and check a node `train`; what it does not say has its default.

        Args:
            node: of a LazyConfig, or a plain dict; references in it are followed.
            origin: what to call the config in messages.
        Raises:
            FcosError: a key is unknown, a value has the wrong type or is out of range; one sentence.
        """
        try:
            plain = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else node
        except OmegaConfBaseException as error:
            key = getattr(error, "full_key", "") or "train"
            raise FcosError(f"{origin} has at {key} a reference that leads nowhere: give it a value.") from error
        if isinstance(plain, Mapping):
            plain = {k: "" if v is None and k in cls.NULL_STRINGS else v for k, v in plain.items()}
        return _read(cls, plain, "train", origin)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts; `of` reads them back."""
        return _plain(self)


_T = TypeVar("_T")


def _read(cls: type[_T], node: Any, path: str, origin: str) -> _T:
    if not isinstance(node, Mapping):
        raise FcosError(f"{path} is {node!r}; it must be a node, for example {{{fields(cls)[0].name}: ...}}.")  # type: ignore[arg-type]
    kinds = get_type_hints(cls)
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    if unknown := [f"{path}.{key}" for key in node if key not in known]:
        keys = [dotted(at) for at, _ in nodes(asdict(TrainOptions()), ("train",))]
        raise FcosError(f"{origin} has the unknown key {unknown[0]}{suggestion(unknown[0], keys)}")
    values = {}
    for name, value in node.items():
        key = f"{path}.{name}"
        if is_dataclass(kinds[name]):
            values[name] = _read(kinds[name], value, key, origin)
        else:
            values[name] = _typed(key, value, kinds[name], known[name].metadata)
    return cls(**values)


def _typed(key: str, value: Any, kind: Any, rules: Mapping[str, Any]) -> Any:
    """The value in its field's type: a whole number where a float is needed, and a whole float where an int is.

    Raises:
        FcosError: it has another type, or is out of range.
    """
    kinds = get_args(kind) if type(None) in get_args(kind) else (kind,)
    if value is None and type(None) in kinds:
        return None
    kind = kinds[0]
    if get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            raise FcosError(f"{key} is {value!r}; it must be a list, each of it {_rule(get_args(kind)[0], rules)}.")
        return tuple(_typed(f"{key}[{i}]", item, get_args(kind)[0], rules) for i, item in enumerate(value))
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if kind in (int, float):
        fits = number and (kind is float or float(value).is_integer())
        fits = fits and rules.get("least", -math.inf) <= value < rules.get("below", math.inf)
    else:
        fits = isinstance(value, kind) and ("choices" not in rules or value in rules["choices"])
    if not fits:
        raise FcosError(f"{key} is {value!r}; it must be {_rule(kind, rules)}{' or null' * (len(kinds) > 1)}.")
    return kind(value)


def _rule(kind: type, rules: Mapping[str, Any]) -> str:
    """What a value must be, in words."""
    if "choices" in rules:
        return f"one of: {', '.join(filter(None, rules['choices']))}"
    if "below" in rules:
        return f"at least {rules['least']} and less than {rules['below']}"
    return f"{rules['least']} or more, {KINDS[kind]}" if "least" in rules else KINDS[kind]


def _plain(options: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for f in fields(options):
        value = getattr(options, f.name)
        if is_dataclass(value):
            found[f.name] = _plain(value)
        elif f.metadata.get("written", True) or value != f.default:
            found[f.name] = list(value) if isinstance(value, tuple) else value
    return found


TRAIN_OPTIONS: dict[str, Any] = TrainOptions().as_dict()
