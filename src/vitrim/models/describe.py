"""What a network is made of: blocks, taps, token grid, parameters and multiply-adds of each part."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from vitrim.models.network import Network


@dataclass(frozen=True)
class Part:
    """A part of a network, with what it costs for one image."""

    name: str
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Description:
    """A network as a table; `str` or `print` shows it."""

    title: str
    facts: tuple[tuple[str, str], ...]
    parts: tuple[Part, ...]

    def __str__(self) -> str:
        """The facts, then the parts with their parameters and multiply-adds, then the total."""
        total = Part("total", sum(p.parameters for p in self.parts), sum(p.multiply_adds for p in self.parts))
        rows = [(p.name, f"{p.parameters:,}", f"{p.multiply_adds / 1e6:,.1f}") for p in (*self.parts, total)]
        header = ("part", "parameters", "multiply-adds (M)")
        widths = [max(len(row[column]) for row in (header, *rows)) for column in range(3)]
        label = max(len(name) for name, _ in self.facts)
        lines = [self.title, *(f"  {name:<{label}}  {value}" for name, value in self.facts), ""]
        for row in (header, *rows[:-1], None, rows[-1]):
            lines.append(_line(row, widths) if row else "  " + "-" * (sum(widths) + 4))
        return "\n".join(lines)


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    return f"  {row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}"


def count_parameters(model: nn.Module) -> int:
    """Number of parameters that take part in the forward pass."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: Network, image_size: tuple[int, int] | None = None) -> int:
    """Multiply-adds of one image (convolutions and matrix products), half of what torch's FLOP counter says.

    `image_size` is the network's own if not given. Nothing is computed: tensors without content run through.
    """
    return _macs_by_module(model, image_size or model.config.image_size)[""]


def describe(model: Network) -> Description:
    """Blocks, taps, token grid, and parameters and multiply-adds of each part, as a table to print."""
    config = model.config
    counted = _macs_by_module(model, config.image_size)
    parts = [
        Part(name, sum(p.numel() for p in module.parameters()), _macs_of(name, module, counted))
        for name, module in _parts(model)
    ]
    own = count_parameters(model) - sum(part.parameters for part in parts)
    parts.append(Part("vit.pos_embed", own, 0))
    feeds = ", ".join(f"block {block} -> 1/{reduction}" for reduction, block in model.roles.items())
    grid = model.token_grid
    facts = (
        ("transformer blocks", str(model.depth)),
        ("taps", feeds or "none"),
        ("token grid", f"{grid[0]} × {grid[1]} = {grid[0] * grid[1]} tokens"),
        ("images", f"{config.in_chans} × {config.image_size[0]} × {config.image_size[1]}"),
        ("classes", str(config.num_classes)),
        ("initialised from", model.initialised_from),
    )
    return Description(f"{config.name} ({config.size})", facts, tuple(part for part in parts if part.parameters))


def _parts(model: Network) -> list[tuple[str, nn.Module]]:
    """The network's children, with the transformer taken apart into its own."""
    parts: list[tuple[str, nn.Module]] = []
    for name, child in model.named_children():
        if name == "vit":
            parts += [(f"vit.{inner}", module) for inner, module in child.named_children()]
        else:
            parts.append((name, child))
    return parts


def _macs_of(name: str, module: nn.Module, counted: dict[str, int]) -> int:
    """A module's multiply-adds; a list of modules is never called itself, so its members' are summed."""
    if name in counted:
        return counted[name]
    return sum(_macs_of(f"{name}.{inner}", child, counted) for inner, child in module.named_children())


def _macs_by_module(model: Network, image_size: tuple[int, int]) -> dict[str, int]:
    """Multiply-adds of one image by dotted module name; "" is the whole."""
    state = {name: torch.empty_like(tensor, device="meta") for name, tensor in _tensors(model).items()}
    image = torch.empty(1, model.config.in_chans, *image_size, device="meta")
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            functional_call(model, state, (image,))
    finally:
        model.train(training)
    root = type(model).__name__
    return {
        "" if name in ("Global", root) else name.removeprefix(f"{root}."): sum(flops.values()) // 2
        for name, flops in counter.get_flop_counts().items()
    }


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
