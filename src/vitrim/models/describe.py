"""Describes a network: blocks, taps, token grid, and parameters and multiply-adds of each part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import nn

from vitrim.config.network_schema import NetworkConfig
from vitrim.errors import InputError
from vitrim.models.adapt import Adapted
from vitrim.models.dry_run import counted
from vitrim.models.factory import NETWORKS
from vitrim.models.network import Network, skeleton


@dataclass(frozen=True)
class Part:
    """A part of a network with its parameters and its multiply-adds for one image."""

    name: str
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Description:
    """Description of a network. `str` or `print` shows it as a table."""

    title: str
    facts: tuple[tuple[str, str], ...]
    parts: tuple[Part, ...]

    def __str__(self) -> str:
        """Return a text with the facts, then the parts with parameters and multiply-adds, then the total."""
        total = Part("total", sum(p.parameters for p in self.parts), sum(p.multiply_adds for p in self.parts))
        rows = [(p.name, f"{p.parameters:,}", f"{p.multiply_adds / 1e6:,.1f}") for p in (*self.parts, total)]
        header = ("part", "parameters", "multiply-adds (M)")
        widths = [max(len(row[column]) for row in (header, *rows)) for column in range(3)]
        label = max(len(name) for name, _ in self.facts)
        lines = [self.title, *(f"  {name:<{label}}  {value}" for name, value in self.facts), ""]
        lines += [_line(row, widths) for row in (header, *rows[:-1])]
        return "\n".join([*lines, "  " + "-" * (sum(widths) + 4), _line(rows[-1], widths)])


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    return f"  {row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}"


class Counts(NamedTuple):
    """Parameters that take part, and multiply-adds for one image."""

    parameters: int
    multiply_adds: int


def count_parameters(model: Network | Adapted) -> int:
    """Count the parameters that take part in the forward pass: those that a gradient of the output reaches.

    Some libraries have parameters that are never used (the cross-attention in MONAI's UNETR). They do not count.
    """
    return counts(model).parameters


def count_macs(model: Network | Adapted) -> int:
    """Count the multiply-adds for one image (convolutions and matrix products): half of torch's FLOP count."""
    return counts(model).multiply_adds


def counts(model: Network | Adapted) -> Counts:
    """Return `count_parameters` and `count_macs` of one run of the model on a meta tensor; nothing is computed."""
    return _own_counts(type(model), model.config) if isinstance(model, Network) else _counts(model)


def counts_of(config: NetworkConfig) -> Counts:
    """Return the same of a network of ours, without its weights."""
    return _own_counts(NETWORKS[config.name], config)


@lru_cache(maxsize=256)
def _own_counts(kind: type[Network], config: NetworkConfig) -> Counts:
    """Count once for all seeds and folds."""
    return _counts(skeleton(kind, config))


def _counts(model: Network | Adapted) -> Counts:
    used, multiply_adds = counted(model, model.example[:1])
    return Counts(sum(model.get_parameter(name).numel() for name in used), multiply_adds[""])


def describe(model: nn.Module) -> Description:
    """Return blocks, taps, token grid, and parameters and multiply-adds of each part, as a table to print.

    Raises InputError for a model that is neither a vitrim network nor adapted with `vitrim.adapt`.

    Example:
        >>> import vitrim
        >>> network = vitrim.create_model("transunet", num_classes=9, depth=3, size="micro", width=0.25)
        >>> description = vitrim.describe(network)
        >>> print(description.title)
        transunet (micro)
        >>> description.facts[0]
        ('transformer blocks', '3')
    """
    if not isinstance(model, (Network, Adapted)):
        raise InputError(f"cannot describe a {type(model).__name__}: use describe(vitrim.adapt(model))")
    used, multiply_adds = counted(model, model.example[:1])
    parts = tuple(part for part in _parts(model, "", multiply_adds, set(used)) if part.parameters or part.multiply_adds)
    grid = model.token_grid
    shared = [
        ("token grid", f"{' × '.join(map(str, grid))} = {torch.Size(grid).numel()} tokens"),
        ("images", " × ".join(map(str, model.example.shape[1:]))),
        ("initialised from", model.initialised_from),
    ]
    if isinstance(model, Adapted):
        title = type(model.model).__name__
        facts = [("transformer blocks", f"{model.depth} of {model.full_depth}, at {model.found.path}"), *shared]
    else:
        title = f"{model.config.name} ({model.config.vit or model.config.size})"
        feeds = ", ".join(f"block {block} -> 1/{reduction}" for reduction, block in model.tap_of_scale.items())
        facts = [
            ("transformer blocks", str(model.depth)),
            ("taps", feeds or "none"),
            ("classes", str(model.config.num_classes)),
            *shared,
        ]
    return Description(title, tuple(facts), parts)


def _parts(model: Network | Adapted, name: str, macs: dict[str, int], used: set[str]) -> Iterator[Part]:
    """Yield the children of the model. A child that contains the list of blocks is split, down to that list."""
    path = f"model.{model.found.path}" if isinstance(model, Adapted) else model.blocks_path
    module = model.get_submodule(name)
    if name and not path.startswith(f"{name}."):
        parameters = sum(p.numel() for inner, p in module.named_parameters() if f"{name}.{inner}" in used)
        yield Part(name.removeprefix("model."), parameters, _macs(name, module, macs))
        return
    prefix = f"{name}." if name else ""
    for inner, parameter in module.named_parameters(recurse=False):
        if prefix + inner in used:
            yield Part((prefix + inner).removeprefix("model."), parameter.numel(), 0)
    for inner, _ in module.named_children():
        yield from _parts(model, prefix + inner, macs, used)


def _macs(name: str, module: nn.Module, macs: dict[str, int]) -> int:
    """Multiply-adds of a module. For a list of modules, which is never called, it is the sum over its members."""
    if name in macs:
        return macs[name]
    return sum(_macs(f"{name}.{inner}", child, macs) for inner, child in module.named_children())
