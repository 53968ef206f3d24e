"""Builds and runs models on meta tensors (without data): which parameters take part, and the multiply-adds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

DRAWING = frozenset(
    {
        *(
            torch.rand,
            torch.randn,
            torch.randint,
            torch.randperm,
            torch.rand_like,
            torch.randn_like,
            torch.randint_like,
        ),
        *(torch.normal, torch.bernoulli, torch.multinomial, Tensor.bernoulli, Tensor.multinomial),
        *(Tensor.uniform_, Tensor.normal_, Tensor.random_, Tensor.bernoulli_, Tensor.exponential_),
    }
)
"""Functions that draw random numbers."""

INITIALISING = frozenset(
    {
        *("normal_", "uniform_", "trunc_normal_", "kaiming_normal_", "kaiming_uniform_", "constant_", "fill_", "zero_"),
        *("erfinv_", "mul_", "add_", "clamp_"),  # of which a truncated normal distribution is made
    }
)
"""Functions that give a tensor its initial values."""


@contextmanager
def without_data() -> Iterator[None]:
    """Models that are built here have meta tensors, without initial values."""
    with torch.device("meta"), _Undrawn():
        yield


class _Undrawn(TorchFunctionMode):
    """Leaves meta tensors without initial values: to draw nothing takes half of the time of building."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        tensor = args[0] if args else given.get("tensor")
        if getattr(func, "__name__", "") in INITIALISING and isinstance(tensor, torch.Tensor) and tensor.is_meta:
            return tensor
        return func(*args, **given)


class RandomNumbers(TorchFunctionMode):
    """Notes the first function that draws random numbers. Dropout in eval mode draws none."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn = ""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if not self.drawn and func in DRAWING:
            self.drawn = f"torch.{func.__name__}"
        return func(*args, **(kwargs or {}))


def run(model: nn.Module, images: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Run `model` in eval mode on `images`. Return its outputs and the parameters of the run, all as meta tensors."""
    output, parameters = _run(model, images)
    return list(_tensors(output)), parameters


def raw_output(model: nn.Module, images: Tensor) -> Any:
    """What `model` returns for `images`, in eval mode, with meta tensors."""
    with torch.no_grad():
        return _run(model, images)[0]


def _run(model: nn.Module, images: Tensor) -> tuple[Any, dict[str, Tensor]]:
    parameters = {
        name: torch.empty_like(p, device="meta").requires_grad_(p.is_floating_point())
        for name, p in model.named_parameters()
    }
    buffers = {name: torch.empty_like(buffer, device="meta") for name, buffer in model.named_buffers()}
    with _evaluating(model):
        output = functional_call(model, {**parameters, **buffers}, (torch.empty_like(images, device="meta"),))
    return output, parameters


def taking_part(model: nn.Module, images: Tensor) -> list[str]:
    """Names of the parameters that affect the outputs of `model` on `images`: those that a gradient reaches."""
    with torch.enable_grad():
        return _reached(*run(model, images))


def counted(model: nn.Module, images: Tensor) -> tuple[list[str], dict[str, int]]:
    """Return what `taking_part` returns, and the multiply-adds of `model` on `images` by dotted name of each module.

    "" is the whole model. Multiply-adds are half of torch's FLOP count: convolutions and matrix products count, with
    those of attention.
    """
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        outputs, parameters = run(model, images)
    root = f"{type(model).__name__}."
    by_module = {
        name.removeprefix(root): sum(flops.values()) // 2
        for name, flops in counter.get_flop_counts().items()
        if name.startswith(root)
    }
    return _reached(outputs, parameters), {"": counter.get_total_flops() // 2, **by_module}


def _reached(outputs: list[Tensor], parameters: dict[str, Tensor]) -> list[str]:
    nodes = [output.grad_fn for output in outputs]
    reached: set[Any] = {None}
    while nodes:  # the graph of the gradient; nothing is computed
        node = nodes.pop()
        if node is not None and node not in reached:
            reached.add(node)
            nodes += [following for following, _ in node.next_functions]
    variables = {id(variable) for node in reached if (variable := getattr(node, "variable", None)) is not None}
    return [name for name, parameter in parameters.items() if id(parameter) in variables]


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _tensors(output: Any) -> Iterator[Tensor]:
    """Yield all tensors in the output of a model: a tensor, or tuples, lists and mappings of tensors."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from _tensors(value)
