"""A CUDA device that is not there: tensors claim to lie on it, the CPU does the work, and waits of the host are noted.

The package asks tensors where they lie, so what it does on a GPU can be run without one, with real numbers. What a GPU
alone has is left out: streams, cuDNN, Triton, NCCL and time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map_only

import fcos_d2
from fcos_d2.modeling import assigner, focal, locations

__all__ = ["CUDA", "ClaimedCuda", "Wait", "asked_by"]

CUDA = torch.device("cuda:0")

# Operators from which the host learns a number, or the size of a result.
_ASK = {
    "_local_scalar_dense", "is_nonzero", "equal", "nonzero", "argwhere", "masked_select", "_unique", "_unique2",
    "unique_dim", "unique_consecutive", "bincount", "repeat_interleave", "nms",
}  # fmt: skip
_INDEX = {"index", "index_put", "index_put_", "_index_put_impl_"}
_COPY = {"_to_copy", "copy_"}
# Whose kernels take tensors of one type only, other than those of the CPU.
_OF_ONE_TYPE = {"native_group_norm", "native_layer_norm"}
_PACKAGE = Path(fcos_d2.__file__).parent


@dataclass(frozen=True, order=True)
class Wait:
    """The host waits until the device has done all that it was given.

    Attributes:
        file, function: of this package, that asked for it; empty for the caller's own.
        operator: whose result is needed: "nonzero", "nms", "mask" for an index of bools, "copy" between the devices.
    """

    file: str
    function: str
    operator: str


class ClaimedCuda(TorchDispatchMode):
    """Within it tensors can be made on "cuda" and sent there.

        with ClaimedCuda() as device:
            found = device.take(model)(inputs)
        print(device.waits)

    Attributes:
        waits: of the host, in order.
        kind: class of the tensors on the device.

    Raises:
        RuntimeError: tensors of both devices meet in one operation, or of two types where the device takes one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[Wait] = []
        self.kind: type[Tensor] = _Claimed
        self._pinned: list[Tensor] = []

    def sent(self, values: Tensor) -> Any:
        """A tensor of the host, on the device."""
        return _Claimed(values)

    def compute(self, func: Any, args: Any, kwargs: Any, to_host: bool) -> Any:
        """Run an operator on the device; `to_host` if its result lies on the host."""
        bare = tree_map_only(_Claimed, lambda x: x.held, (args, kwargs))
        if kwargs.get("device") is not None:
            bare[1]["device"] = torch.device("cpu")
        result = func(*bare[0], **bare[1])
        if to_host:
            return result
        return return_and_correct_aliasing(func, args, kwargs, tree_map_only(Tensor, _Claimed, result))

    def take(self, module: Any) -> Any:
        """A module whose parameters and buffers are sent to the device, in place."""
        for part in module.modules():
            for name, old in [*part.named_parameters(recurse=False)]:
                part.register_parameter(name, nn.Parameter(self.sent(old.detach()), old.requires_grad))
            for name, old in [*part.named_buffers(recurse=False)]:
                part._buffers[name] = self.sent(old)
        return module

    def __enter__(self) -> Any:
        torch._C._ensureCUDADeviceGuardSet()
        self._open = ExitStack()
        for owner, name, value in (
            (torch.cuda, "_lazy_init", lambda: None),
            (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
            (torch.cuda, "is_bf16_supported", lambda: True),
            (torch.autograd, "backward", _backward),
            (focal, "_kernel", lambda device: None),  # of Triton, which asks the driver
            (Tensor, "pin_memory", lambda x, *_: self._pin(x)),
            (Tensor, "is_pinned", lambda x, *_: self._is_pinned(x)),
        ):
            self._open.enter_context(mock.patch.object(owner, name, value))
        self._open.enter_context(_made_on_the_host())
        self._open.enter_context(torch.backends.cudnn.flags(enabled=False))
        _forget()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._open.close()
        _forget()

    def _pin(self, values: Tensor) -> Tensor:
        self._pinned.append(values.clone())
        return self._pinned[-1]

    def _is_pinned(self, values: Tensor) -> bool:
        return any(values is x for x in self._pinned)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        strangers = [x for x in tensors if not isinstance(x, self.kind)]
        name, device = func.overloadpacket.__name__, kwargs.get("device")
        to_device = device is not None and torch.device(device).type == "cuda"
        if len(strangers) == len(tensors) and not to_device:
            return func(*args, **kwargs)
        if (
            name in _COPY
            and tensors
            and isinstance(tensors[-1], self.kind)
            != (to_device if name == "_to_copy" and device is not None else isinstance(tensors[0], self.kind))
        ):
            return self._moved(func, args, kwargs)
        if name in _ASK and kwargs.get("output_size") is None:
            self._note(name)
        elif name in _INDEX and any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1]):
            self._note("mask")
        if name in _OF_ONE_TYPE and len({x.dtype for x in tensors}) > 1:
            raise RuntimeError(f"{func} is given tensors of {', '.join(sorted({str(x.dtype) for x in tensors}))}")
        if any(x.dim() > 0 for x in strangers):
            raise RuntimeError(f"{func} is given tensors of cuda:0 and of the CPU, of shapes {[*map(_shape, tensors)]}")
        return self.compute(func, args, kwargs, to_host=False)

    def _moved(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A copy between the devices."""
        in_place = func.overloadpacket.__name__ == "copy_"
        source = args[1] if in_place else args[0]
        waits_for_none = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
        if not (waits_for_none and self._is_pinned(source)):
            self._note("copy")
        if isinstance(source, self.kind):
            return self.compute(func, args, kwargs, to_host=True)
        moved = self.sent(source.clone())
        given = (args[0], moved) if in_place else (moved, *args[1:])
        return self.compute(func, given, {} if in_place else {**kwargs, "non_blocking": False}, to_host=False)

    def _note(self, operator: str) -> None:
        self.waits.append(asked_by(sys._getframe(1), operator))


def asked_by(frame: Any, operator: str) -> Wait:
    """A wait that the innermost function of this package asks for, of a frame and those that called it."""
    while frame is not None:
        file, function = Path(frame.f_code.co_filename), frame.f_code.co_name
        if file.is_relative_to(_PACKAGE) and not function.startswith("<"):  # as comprehensions do
            return Wait(file.relative_to(_PACKAGE).as_posix(), function, operator)
        frame = frame.f_back
    return Wait("", "", operator)


def _shape(x: Tensor) -> tuple[int, ...]:
    return tuple(x.shape)


class _Claimed(Tensor):
    """A tensor that says that it lies on cuda:0; what it holds lies on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Any:
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=CUDA,
        )  # fmt: skip
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self, **_: Any) -> str:
        return f"on cuda: {self.held}"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} outside of ClaimedCuda: look at what `held` holds")


def _forget() -> None:
    """Forget the constants that lie on the device: another one comes."""
    assigner._kept_windows.cache_clear()
    focal._kept_cells.cache_clear()
    locations._lay.cache_clear()


@contextmanager
def _made_on_the_host() -> Iterator[None]:
    """`torch.tensor(values, device="cuda")` makes a tensor on the host and copies it, which is seen as a copy."""
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        yield
    finally:
        torch._C._set_only_lift_cpu_tensors(before)


@torch.no_grad()
def _backward(tensors: Any, grad_tensors: Any = None, *_: Any, **__: Any) -> None:
    """`torch.autograd.backward` on this thread; PyTorch's own asks the driver for its streams."""
    roots = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    grads: dict[Any, dict[int, Tensor]] = {}
    for root in roots:
        grads.setdefault(root.grad_fn, {})[root.output_nr] = torch.ones_like(root)
    for node in _ordered([root.grad_fn for root in roots]):
        given = grads.pop(node, {})
        if not given:
            continue
        if hasattr(node, "variable"):
            leaf = node.variable
            leaf.grad = given[0].clone() if leaf.grad is None else leaf.grad + given[0]
            continue
        for grad, (then, number) in _gradients(node, [given.get(i) for i in range(len(node._input_metadata))]):
            wanted = then._input_metadata[number]
            assert grad.device == wanted.device, f"{node} gives a gradient on {grad.device}, not {wanted.device}"
            grad = grad.sum_to_size(wanted.shape).to(wanted.dtype)
            sums = grads.setdefault(then, {})
            sums[number] = grad if number not in sums else sums[number] + grad


def _gradients(node: Any, given: list[Tensor | None]) -> list[tuple[Tensor, tuple[Any, int]]]:
    """What a node makes of the gradients of its results, each with the node and the place that it is for."""
    written_in_python = isinstance(node, BackwardCFunction)
    results = node.apply(*given) if written_in_python else node(*given)
    results = results if isinstance(results, tuple) else (results,)
    places = node.next_functions
    if written_in_python:  # a place for each tensor among the arguments, a result for each argument
        results = [x for x in results if x is not None]
        wanted = [x for x in places if x[0] is not None]
        places = wanted if len(wanted) == len(results) else places  # else there are results that nobody wants
        assert len(results) == len(places), f"{node} gives {len(results)} gradients for {len(places)} tensors"
    return [(grad, place) for grad, place in zip(results, places) if grad is not None and place[0] is not None]


def _ordered(roots: list[Any]) -> list[Any]:
    """The nodes of a graph, each after all that lead to it."""
    found: list[Any] = []
    seen: set[Any] = set()
    stack = [(root, False) for root in roots]
    while stack:
        node, done = stack.pop()
        if done:
            found.append(node)
        elif node is not None and node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((then, False) for then, _ in node.next_functions)
    return found[::-1]
