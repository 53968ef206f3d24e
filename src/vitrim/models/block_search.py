"""Finds the list of transformer blocks inside any module by a run of the module on a meta tensor (without data)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitrim.errors import InputError
from vitrim.models.dry_run import RandomNumbers, run

HIERARCHY = "a hierarchical model such as Swin or SegFormer has no single token grid and cannot be truncated by blocks"
NO_ATTENTION = (
    "no attention was found in it, so it has no transformer blocks to measure or remove; if its attention has another "
    "name, name the list of blocks with blocks=PATH"
)
CHOOSE = "name the list of blocks with blocks=PATH"

Blocks = nn.ModuleList | nn.Sequential


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
    nested: bool = False
    """Whether each block is itself a list of modules (attention, MLP) that the model calls one by one."""


class _UnusableError(InputError):
    """A list of attention blocks that is no plain stack, with the reason."""

    hierarchy = False
    """Whether the shape of the tokens changes, as in a hierarchical model."""
    maps = False
    """Whether the blocks pass maps (batch, rows, columns, channels) or (batch, channels, rows, columns)."""
    windowed = False
    """Whether blocks attend inside windows."""


@dataclass(frozen=True)
class _Call:
    index: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    returns: int | None


def find_blocks(model: nn.Module, example: Tensor, path: str | None = None) -> BlockList:
    """Find the transformer blocks of `model`: at `path`, or the only list of attention blocks on one token grid.

    `example` holds two images. Raises InputError, with the reason, if there is no such list or more than one, if the
    blocks are not called exactly once, in order, on tokens whose shape they keep, if the model has attention blocks of
    another kind too, or if it draws random numbers.
    """
    lists = {path: _at(model, path)} if path else _attention_lists(model)
    name = type(model).__name__
    if not lists:
        raise InputError(f"cannot adapt {name}: {NO_ATTENTION}")
    calls = _watch(model, lists, example)
    usable: dict[str, BlockList] = {}
    problems: dict[str, _UnusableError] = {}
    for place, blocks in lists.items():
        try:
            usable[place] = _checked(place, blocks, calls[place], batch=example.shape[0])
        except _UnusableError as problem:
            problems[place] = problem
    if path and path in problems:
        raise InputError(f"cannot adapt {name}: {problems[path]}")
    usable = {place: found for place, found in usable.items() if not _inside(place, usable)}
    problems = {
        place: problem
        for place, problem in problems.items()
        if calls[place] and not _inside(place, usable) and not _only_holds(lists[place], place, usable)
    }
    if not usable:
        raise InputError(f"cannot adapt {name}: {_why_none(problems)}")
    places = ", ".join(f"{found.path} ({found.tokens} tokens)" for found in usable.values())
    if len({found.tokens for found in usable.values()}) > 1:
        raise InputError(f"cannot adapt {name}: it has blocks on several token grids: {places}; {HIERARCHY}")
    others = [str(problem) for problem in problems.values() if problem.hierarchy or problem.maps]
    if others:
        raise InputError(
            f"cannot adapt {name}: beside {places} it has attention blocks of another kind ({others[0]}); {HIERARCHY}; "
            f"if one list is meant, {CHOOSE}"
        )
    if len(usable) == 1:
        return next(iter(usable.values()))
    raise InputError(f"cannot adapt {name}: it has several lists of blocks: {places}; choose one with blocks=PATH")


def _inside(place: str, others: dict[str, BlockList]) -> bool:
    return any(place.startswith(f"{other}.") for other in others)


def _only_holds(blocks: Blocks, place: str, usable: dict[str, BlockList]) -> bool:
    """Whether a list has one module, and a usable list lies in it: it holds a whole transformer."""
    return len(blocks) == 1 and any(found.startswith(f"{place}.") for found in usable)


def _why_none(problems: dict[str, _UnusableError]) -> str:
    """Why no list of blocks can be used."""
    seen = "; ".join(str(problem) for problem in list(problems.values())[:2])
    if not any(problem.hierarchy for problem in problems.values()):
        windowed = next((problem for problem in problems.values() if problem.windowed), None)
        if windowed is not None:
            return (
                f"{windowed}; attention inside windows does not cover the image, so it cannot be measured beside that "
                f"of the global blocks, and no depth follows from it"
            )
    seen = f" ({seen})" if seen else ""
    plain = problems and not any(problem.hierarchy for problem in problems.values())
    why = "" if plain else f"{HIERARCHY}; for other models, "
    return f"it has no list of attention blocks on one token grid{seen}; {why}{CHOOSE}"


def _at(model: nn.Module, path: str) -> Blocks:
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


def _attention_lists(model: nn.Module) -> dict[str, Blocks]:
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
    """Whether a part says in its name or class that it is attention. Identity stands where a model leaves it out."""
    parts = ((name, module) for name, module in block.named_modules() if name and not isinstance(module, nn.Identity))
    names = [f"{name} {type(module).__name__}".lower() for name, module in parts]
    return any("attn" in name or "attention" in name for name in names)


def _watch(model: nn.Module, lists: dict[str, Blocks], example: Tensor) -> dict[str, list[_Call]]:
    """Run `model` once and record every call of a block."""
    calls: dict[str, list[_Call]] = {name: [] for name in lists}
    entered: dict[tuple[str, int], tuple[int, ...]] = {}

    def entering(name: str, index: int) -> Any:
        def note(block: nn.Module, args: Any, kwargs: Any) -> None:
            tokens = first_tensor(args, kwargs)
            entered[name, index] = () if tokens is None else tuple(tokens.shape)

        return note

    def leaving(name: str, index: int) -> Any:
        def note(block: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            returned = output[0] if isinstance(output, tuple) and output else output
            shape = tuple(returned.shape) if isinstance(returned, Tensor) else ()
            length = len(output) if isinstance(output, tuple) else None
            calls[name].append(_Call(index, entered.get((name, index), ()), shape, length))

        return note

    hooks = []
    for name, blocks in lists.items():
        for index, block in enumerate(blocks):
            first, last = _ends(block)
            hooks.append(first.register_forward_pre_hook(entering(name, index), with_kwargs=True))
            hooks.append(last.register_forward_hook(leaving(name, index), with_kwargs=True))
    try:
        with torch.no_grad(), RandomNumbers() as random:
            run(model, example)
    except InputError:
        raise
    except Exception as error:  # models of other libraries raise different errors for unsuitable images
        reason = str(error).strip().splitlines() or [type(error).__name__]
        shape = tuple(example.shape[1:])
        axes = "depth, height, width" if example.ndim == 5 else "height, width"
        raise InputError(
            f"cannot adapt {type(model).__name__}: it does not run on example images of shape {shape} ({reason[0]}); "
            f"give two suitable images, as example=torch.zeros(2, channels, {axes}); on the command line their size is "
            f"data.image_size of --study"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    if random.drawn:
        raise InputError(
            f"cannot adapt {type(model).__name__}: it draws random numbers ({random.drawn}) in eval mode too, so its "
            f"tokens do not lie where the patches do; ViTMAE, for example, passes a random part of the patches through "
            f"its blocks in random order: load its weights into a ViT without masking"
        )
    return calls


def _ends(block: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The first and the last module that run in a block; both are the block itself, unless it is a list of modules."""
    if _is_nested(block):
        parts = list(block.children())
        return parts[0], parts[-1]
    return block, block


def _is_nested(block: nn.Module) -> bool:
    return isinstance(block, nn.ModuleList) and len(block) > 0


def _checked(name: str, blocks: Blocks, calls: list[_Call], batch: int) -> BlockList:
    if [call.index for call in calls] != list(range(len(blocks))):
        raise _UnusableError(f"the {len(blocks)} modules in {name} are not called once each, one after the other")
    shapes = {shape for call in calls for shape in (call.inputs, call.outputs)}
    if len(shapes) > 1:
        raise _unusable(f"{name} changes the shape of the tokens from block to block", hierarchy=True)
    (shape,) = shapes
    if len(shape) > 3 and batch == shape[0]:
        windowed = sum(_has_windows(block) for block in blocks)
        if windowed:
            raise _unusable(
                f"{windowed} of the {len(blocks)} blocks in {name} attend only inside windows, on tokens of shape "
                f"{shape}, as in SAM's image encoder",
                maps=True,
                windowed=True,
            )
    if len(shape) != 3 or batch not in shape[:2]:
        raise _unusable(
            f"{name} returns tensors of shape {shape}, not tokens (batch, tokens, channels)", maps=len(shape) > 3
        )
    if len({call.returns for call in calls}) > 1:
        raise _UnusableError(f"the modules in {name} return different kinds of values")
    nested = all(_is_nested(block) for block in blocks)
    return BlockList(name, shape[1] if shape[0] == batch else shape[0], calls[0].returns, nested)


def _unusable(text: str, hierarchy: bool = False, maps: bool = False, windowed: bool = False) -> _UnusableError:
    error = _UnusableError(text)
    error.hierarchy, error.maps, error.windowed = hierarchy, maps, windowed
    return error


def _has_windows(block: nn.Module) -> bool:
    """Whether a block says that it attends inside windows (`window_size` above 0, in timm and Hugging Face)."""
    sizes = (getattr(module, "window_size", None) for module in block.modules())
    return any(max(size) > 0 if isinstance(size, (tuple, list)) else bool(size) for size in sizes if size is not None)


def first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The first tensor among the arguments of a call. In all libraries this is the tokens."""
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)


def block_output(output: Any) -> Tensor:
    """The tokens that a block returns, alone or as the first item of a tuple."""
    return output[0] if isinstance(output, tuple) else output
