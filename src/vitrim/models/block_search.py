"""Finds the list of transformer blocks inside any module by a run of the module on a meta tensor (without data)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitrim.errors import InputError
from vitrim.models.dry_run import run

HIERARCHY = "a hierarchical model such as Swin or SegFormer has no single token grid and cannot be truncated by blocks"


@dataclass(frozen=True)
class BlockList:
    """A list of modules that run one after another on tokens of one shape."""

    path: str
    """Dotted name inside the model."""
    tokens: int
    """Number of tokens per image, with class and register tokens."""
    returns: int | None
    """None if a block returns its tokens. Otherwise the length of the returned tuple, whose first item is the tokens.
    """


@dataclass(frozen=True)
class _Call:
    index: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    returns: int | None


def find_blocks(model: nn.Module, example: Tensor, path: str | None = None) -> BlockList:
    """Find the transformer blocks of `model`: at `path`, or the only list of attention blocks on one token grid.

    `example` holds two images. Raises InputError, with the reason, if there is no such list or more than one, or if
    the blocks are not called exactly once, in order, on tokens whose shape they keep.
    """
    lists = {path: _at(model, path)} if path else _attention_lists(model)
    calls = _watch(model, lists, example)
    usable: dict[str, BlockList] = {}
    problems: dict[str, str] = {}
    for name, blocks in lists.items():
        try:
            usable[name] = _checked(name, len(blocks), calls[name], batch=example.shape[0])
        except InputError as problem:
            problems[name] = str(problem)
    outer = [found for name, found in usable.items() if not any(name.startswith(f"{other}.") for other in usable)]
    if len(outer) == 1:
        return outer[0]
    if path:
        raise InputError(f"cannot adapt {type(model).__name__}: {problems[path]}")
    if not outer:
        seen = f" ({'; '.join(list(problems.values())[:2])})" if problems else ""
        raise InputError(
            f"cannot adapt {type(model).__name__}: it has no list of attention blocks on one token grid{seen}; "
            f"{HIERARCHY}; for other models, name the list of blocks with blocks=PATH"
        )
    places = ", ".join(f"{found.path} ({found.tokens} tokens)" for found in outer)
    if len({found.tokens for found in outer}) > 1:
        raise InputError(
            f"cannot adapt {type(model).__name__}: it has blocks on several token grids: {places}; {HIERARCHY}"
        )
    raise InputError(
        f"cannot adapt {type(model).__name__}: it has several lists of blocks: {places}; choose one with blocks=PATH"
    )


def _at(model: nn.Module, path: str) -> nn.ModuleList | nn.Sequential:
    try:
        blocks = model.get_submodule(path)
    except AttributeError as error:
        raise InputError(f"cannot adapt {type(model).__name__}: it has no module {path!r}") from error
    if not isinstance(blocks, (nn.ModuleList, nn.Sequential)) or not len(blocks):
        raise InputError(
            f"cannot adapt {type(model).__name__}: {path} is a {type(blocks).__name__}, not a list of blocks "
            f"(ModuleList or Sequential)"
        )
    return blocks


def _attention_lists(model: nn.Module) -> dict[str, nn.ModuleList | nn.Sequential]:
    """Find every list of modules of one class that contain attention."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential))
        and len(module)
        and len({type(block) for block in module}) == 1
        and all(_has_attention(block) for block in module)
    }


def _has_attention(block: nn.Module) -> bool:
    names = [f"{name} {type(module).__name__}".lower() for name, module in block.named_modules() if name]
    return any("attn" in name or "attention" in name for name in names)


def _watch(
    model: nn.Module, lists: dict[str, nn.ModuleList | nn.Sequential], example: Tensor
) -> dict[str, list[_Call]]:
    """Run `model` once and record every call of a block."""
    calls: dict[str, list[_Call]] = {name: [] for name in lists}

    def noting(name: str, index: int) -> Any:
        def note(block: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            tokens = first_tensor(args, kwargs)
            returned = output[0] if isinstance(output, tuple) and output else output
            shape = tuple(returned.shape) if isinstance(returned, Tensor) else ()
            length = len(output) if isinstance(output, tuple) else None
            calls[name].append(_Call(index, tuple(tokens.shape) if tokens is not None else (), shape, length))

        return note

    hooks = [
        block.register_forward_hook(noting(name, index), with_kwargs=True)
        for name, blocks in lists.items()
        for index, block in enumerate(blocks)
    ]
    try:
        with torch.no_grad():
            run(model, example)
    except InputError:
        raise
    except Exception as error:  # models of other libraries raise different errors for unsuitable images
        reason = str(error).strip().splitlines() or [type(error).__name__]
        shape = tuple(example.shape[1:])
        raise InputError(
            f"cannot adapt {type(model).__name__}: it does not run on example images of shape {shape} ({reason[0]}); "
            f"give two suitable images, as example=torch.zeros(2, channels, height, width)"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _checked(name: str, count: int, calls: list[_Call], batch: int) -> BlockList:
    if [call.index for call in calls] != list(range(count)):
        raise InputError(f"the {count} modules in {name} are not called once each, one after the other")
    shapes = {shape for call in calls for shape in (call.inputs, call.outputs)}
    if len(shapes) > 1:
        raise InputError(f"{name} changes the shape of the tokens from block to block")
    (shape,) = shapes
    if len(shape) != 3 or batch not in shape[:2]:
        raise InputError(f"{name} returns tensors of shape {shape}, not tokens (batch, tokens, channels)")
    if len({call.returns for call in calls}) > 1:
        raise InputError(f"the modules in {name} return different kinds of values")
    return BlockList(name, shape[1] if shape[0] == batch else shape[0], calls[0].returns)


def first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The first tensor among the arguments of a call. In all libraries this is the tokens."""
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)


def block_output(output: Any) -> Tensor:
    """The tokens that a block returns, alone or as the first item of a tuple."""
    return output[0] if isinstance(output, tuple) else output
