"""Runs an unchanged model on images, in eval mode and without gradients, batch by batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from vitrim.attention.calls import Caller, title_of
from vitrim.attention.capture import Capture, Captured, Reducer
from vitrim.errors import InputError


def as_written(model: nn.Module) -> nn.Module:
    """Return the model without the wrapper of `torch.compile`."""
    return getattr(model, "_orig_mod", model)


CapturedRun = Callable[[Tensor, Reducer], Captured]
"""Runs a model once on a batch of images; the reducer gets its attention calls."""


@contextmanager
def captured_runs(model: nn.Module, layers: str | Sequence[str] | None = None) -> Iterator[CapturedRun]:
    """Give a function that runs `model` on one batch after another, in eval mode and without gradients.

    The modules of the model are listed once, and after the first run only those that made attention calls are watched,
    because both take as long as a part of a forward pass on a GPU. The function raises InputError if the model cannot
    take the images, if no attention was captured, or if other layers made the calls than in the first run.
    """
    capture = Capture(model, layers)
    only: list[Caller] | None = None
    expected: Counter[str] = Counter()

    def run(batch: Tensor, reducer: Reducer) -> Captured:
        nonlocal only, expected
        callers = only and [replace(caller, images=len(batch)) for caller in only]
        with torch.no_grad(), capture.into(reducer, callers) as captured:
            _forward(model, batch)
        if not expected:
            found = list(capture.callers.values())
            expected = captured.counts
            only = found if all(caller.called for caller in found) else None
        elif only is not None and captured.counts != expected:
            raise InputError(
                f"the attention layers of {title_of(model)} differ between batches: {_calls(expected)} in the first, "
                f"{_calls(captured.counts)} in a later one"
            )
        return captured

    with evaluating(model):
        yield run


def _calls(counts: Counter[str]) -> str:
    calls, layers = counts.total(), len(counts)
    return f"{calls} call{'s' if calls != 1 else ''} of {layers} layer{'s' if layers != 1 else ''}"


def _forward(model: nn.Module, batch: Tensor) -> None:
    parameter = next(model.parameters(), None)
    if parameter is not None:
        batch = batch.to(parameter.device, parameter.dtype if parameter.is_floating_point() else None)
    try:
        model(batch)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError, ValueError) as error:
        shape = "×".join(str(n) for n in batch.shape[1:])
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{title_of(model)} cannot take images of {shape} (channels and size): {reason}") from error


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Set eval mode inside the context. Restore the mode of every module afterwards."""
    training = [module for module in model.modules() if module.training]
    if training:
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


Spacing = tuple[float, ...]
"""Distance from one pixel to the next in mm, along rows and along columns; in a volume along three axes."""

CaseImages = tuple[str, Tensor, Spacing | None]
"""A case: its id, its slices (S, C, H, W), and its pixel spacing; None if the spacing is unknown."""


def batches(
    images: Any, cases: Sequence[str] | None, spacing: Spacing | None, batch_size: int
) -> Iterator[tuple[list[str], Tensor, Spacing | None]]:
    """Yield batches: the case id of each image, the images (B, C, H, W) or (B, C, D, H, W), and their spacing.

    A batch has at most `batch_size` images. `images` and `cases` are as in `profile_attention`.

    Raises InputError if images have another shape, if a spacing has not one number for each axis, or if there are fewer
    case ids than images.
    """
    count = 0
    for item in [images] if isinstance(images, Tensor) else images:
        if isinstance(item, Mapping):
            item = item["image"]
        name, mm = None, spacing
        if isinstance(item, (tuple, list)):
            if isinstance(item[0], str):
                name, item, mm = item[0], item[1], item[2] if len(item) > 2 and item[2] is not None else spacing
            else:
                item = item[0]
        batch = torch.as_tensor(item)
        whose = "" if name is None else f" of case {name}"
        if batch.ndim not in (4, 5) or not len(batch):
            raise InputError(
                f"images{whose} must be (images, channels, height, width), or (images, channels, depth, height, width) "
                f"for volumes; got {tuple(batch.shape)}"
            )
        if mm is not None and len(mm) != batch.ndim - 2:
            raise InputError(f"the spacing{whose} must have {batch.ndim - 2} numbers, one for each axis; got {mm}")
        places = range(count, count + len(batch))
        if cases is not None and len(cases) < places.stop:
            raise InputError(f"there are {len(cases)} case ids for {places.stop} images or more")
        ids = [name if name is not None else str(cases[n]) if cases is not None else str(n) for n in places]
        count += len(batch)
        for start in range(0, len(batch), batch_size):
            part = slice(start, start + batch_size)
            yield ids[part], batch[part], tuple(float(n) for n in mm) if mm is not None else None
