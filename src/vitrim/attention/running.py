"""Run a model over images as it is: in eval mode for the while, without gradients, one batch after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vitrim.attention.capture import Captured, Reducer, capture_attention
from vitrim.errors import InputError


def run_captured(
    model: nn.Module, batch: Tensor, reducer: Reducer, layers: str | Sequence[str] | None = None
) -> Captured:
    """Run `model` once over `batch` (B, C, H, W), in eval mode and without gradients, its attention going to `reducer`.

    Raises:
        InputError: if the model cannot take the images, or no attention was captured.
    """
    model = getattr(model, "_orig_mod", model)  # torch.compile's wrapper
    with evaluating(model), torch.no_grad(), capture_attention(model, reducer, layers=layers) as captured:
        _forward(model, batch)
    return captured


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
        raise InputError(
            f"{type(model).__name__} cannot take images of {shape} (channels×height×width): {reason}"
        ) from error


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode for the while; afterwards every module is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def batches(
    images: Any, cases: Sequence[str] | None, spacing: tuple[float, float] | None, batch_size: int
) -> Iterator[tuple[list[str], Tensor, tuple[float, float] | None]]:
    """Case id of each image, the images (B, C, H, W), their spacing: at most `batch_size` images, of one spacing."""
    items: Iterable[Any] = [images] if isinstance(images, Tensor) else images
    count = 0
    for item in items:
        mm = spacing
        if isinstance(item, Mapping):
            item = item["image"]
        if isinstance(item, (tuple, list)) and isinstance(item[0], str):
            name, batch = item[0], torch.as_tensor(item[1])
            mm = item[2] if len(item) > 2 and item[2] is not None else spacing
            ids = [name] * len(batch)
        else:
            batch = torch.as_tensor(item[0] if isinstance(item, (tuple, list)) else item)
            ids = [str(n) for n in range(count, count + len(batch))]
            if cases is not None:
                ids = [str(case) for case in cases[count : count + len(batch)]]
        if batch.ndim != 4:
            raise InputError(f"images must be (batch, channels, height, width); got {tuple(batch.shape)}")
        if len(ids) != len(batch):
            raise InputError(f"{len(cases or ())} case ids for more images than that")
        count += len(batch)
        for start in range(0, len(batch), batch_size):
            part = slice(start, start + batch_size)
            yield ids[part], batch[part], (float(mm[0]), float(mm[1])) if mm is not None else None
