"""A network for prediction on a CPU, most of whose products are of 8-bit integers.

Weights are rounded once, with a scale for each output channel. What goes into a layer is rounded at every call, to 256
steps between the least and the largest value in the batch. The products are added up in 32 bits and go on as float32.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from vitrim.errors import InputError
from vitrim.hardware import cpu_has_int8
from vitrim.models.layers import UpConvs, double_by_interpolation
from vitrim.models.network import Network

FEWEST_CHANNELS = 32
"""Convolutions of fewer channels, in or out, stay in float32: they see the image itself, or cost little."""


def to_int8(network: Network) -> Network:
    """Return a copy, for prediction on this CPU only, with linear layers and most convolutions in 8-bit integers.

    The CNNs before or beside a transformer stay in float32 (`Network.float32_parts`). They are some 50 layers deep and
    add up the rounding: with them in integers, Dice with the float32 labels of TransUNet falls to 0.963; with all that
    comes after them in integers it is 0.997. Their maps are large and thin, so that rounding takes the time that the
    products save.

    `network` has been folded (`vitrim.inference.folding`) and is in eval mode; it is not changed. The logits are near
    its own, not equal to them, and depend a little on which images are in a batch together. InputError where the
    processor multiplies 8-bit integers no faster than float32 (without VNNI they would even overflow).
    """
    if not cpu_has_int8():
        raise InputError("this processor has no instructions for 8-bit integers (VNNI); take another precision")
    rounded = copy.deepcopy(network)
    for name, layer in list(rounded.named_modules()):
        if type(layer) is nn.Linear:
            rounded.set_submodule(name, Int8Linear(layer))
        elif type(layer) is nn.Conv2d and name.split(".")[0] not in network.float32_parts and _is_wide(layer):
            rounded.set_submodule(name, Int8Conv2d(layer))
    for name, stage in list(rounded.named_modules()):
        if type(stage) is UpConvs and isinstance(_layers(stage)[0], Int8Conv2d):
            rounded.set_submodule(name, Int8UpConvs(stage))
    return rounded


class Int8Linear(nn.Module):
    """A linear layer: (..., in) float32 in, (..., out) float32 out."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight, self.scales = _rounded(layer.weight)
        self.zeros = torch.zeros(len(weight), dtype=torch.int32)
        self.weight = torch.ops.onednn.qlinear_prepack(weight, None)
        self.bias = layer.bias

    def forward(self, input: Tensor) -> Tensor:
        """The product, to rounding."""
        steps, scale, zero = quantised(input)
        return torch.ops.onednn.qlinear_pointwise(
            steps, scale, zero, self.weight, self.scales, self.zeros, self.bias, 1.0, 0, torch.float32, "none", [], ""
        )


class Int8Conv2d(nn.Module):
    """A convolution: (B, in, H, W) float32 in, (B, out, H', W') float32 out."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        assert not isinstance(layer.padding, str)
        self.how = (list(layer.stride), list(layer.padding), list(layer.dilation), layer.groups)
        weight, self.scales = _rounded(layer.weight)
        self.zeros = torch.zeros(len(weight), dtype=torch.int32)
        self.weight = torch.ops.onednn.qconv_prepack(weight, self.scales, 1.0, 0, *self.how, None)
        self.bias = layer.bias
        # oneDNN's 1 x 1 convolution of many channels is 8 times slower where zero is step 0, as it is after a ReLU
        self.least_zero = int(layer.kernel_size == (1, 1))

    def forward(self, input: Tensor) -> Tensor:
        """The convolution, to rounding."""
        return self.of_steps(*quantised(input.contiguous(memory_format=torch.channels_last), self.least_zero))

    def of_steps(self, steps: Tensor, scale: float, zero: int) -> Tensor:
        """The convolution of the values scale * (steps - zero)."""
        return torch.ops.onednn.qconv_pointwise(
            *(steps, scale, zero, self.weight, self.scales, self.zeros, self.bias, *self.how),
            *(1.0, 0, torch.float32, "none", [], ""),
        )


class Int8UpConvs(nn.Module):
    """`UpConvs` whose first convolution is an `Int8Conv2d`; what goes into it is at its full size only as steps.

    Interpolation makes no value beyond those there are, so that the range is known before it.
    """

    def __init__(self, stage: UpConvs) -> None:
        super().__init__()
        first, *others = _layers(stage)
        assert isinstance(first, Int8Conv2d)
        self.first, self.others = first, nn.Sequential(*others)

    def forward(self, input: Tensor, skip: Tensor | None = None) -> Tensor:
        """As of `UpConvs`, to rounding."""
        count, below, height, width = input.shape
        size = (count, below + (0 if skip is None else skip.shape[1]), 2 * height, 2 * width)
        steps = torch.empty(size, dtype=torch.uint8, memory_format=torch.channels_last)
        parts = [part.contiguous(memory_format=torch.channels_last) for part in (input, skip) if part is not None]
        scale, zero = _scale(parts)
        for n in range(count):  # one image at a time stays in the cache
            _round_into(steps[n, :below], double_by_interpolation(parts[0][n : n + 1])[0], scale, zero)
            if skip is not None:
                _round_into(steps[n, below:], parts[1][n], scale, zero)
        return self.others(self.first.of_steps(steps, scale, zero))


def quantised(values: Tensor, least_zero: int = 0) -> tuple[Tensor, float, int]:
    """Steps (uint8, of the shape and layout of `values`), scale and zero: values = scale * (steps - zero).

    Zero is a step of its own, at least `least_zero`, so that padding stays exact. Values that are not finite give a
    scale that is not.
    """
    if not values.is_contiguous(memory_format=torch.channels_last if values.ndim == 4 else torch.contiguous_format):
        values = values.contiguous()
    steps = torch.empty_like(values, dtype=torch.uint8)
    scale, zero = _scale([values], least_zero)
    for one, into in zip(values, steps, strict=True):  # one image at a time stays in the cache
        _round_into(into, one, scale, zero)
    return steps, scale, zero


def _scale(tensors: list[Tensor], least_zero: int = 0) -> tuple[float, int]:
    """What 256 steps from the least to the greatest value in any of the tensors are apart, and which step is zero."""
    # over memory as it lies: torch's minimum and maximum are many times slower over channels_last
    lows, highs = zip(*(torch.aminmax(_as_it_lies(tensor)) for tensor in tensors), strict=True)
    low, high = float(torch.stack(lows).min().clamp(max=0)), float(torch.stack(highs).max().clamp(min=0))
    low = min(low, -high * least_zero / (255 - least_zero))
    scale = max((high - low) / 255, torch.finfo(torch.float32).tiny)  # NaN stays NaN
    return scale, max(least_zero, round(-low / scale)) if scale < float("inf") else 0


def _round_into(steps: Tensor, values: Tensor, scale: float, zero: int) -> None:
    """Write the steps of `values` into `steps`, of the same shape."""
    steps.copy_((values * (1 / scale)).add_(zero + 0.5).clamp_(0, 255))


def _as_it_lies(values: Tensor) -> Tensor:
    """A view (B, n) of a contiguous or channels_last tensor in the order of its memory."""
    return (values if values.is_contiguous() else values.permute(0, 2, 3, 1)).view(len(values), -1)


def _layers(stage: UpConvs) -> list[nn.Module]:
    return [layer for part in stage for layer in part.children()]


def _rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (out, ...) as int8, and the scale of each output channel (out,)."""
    scales = (weight.detach().flatten(1).abs().amax(1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
    steps = (weight.detach() / scales.view(-1, *(1,) * (weight.ndim - 1))).round().to(torch.int8)
    return steps, scales


def _is_wide(layer: nn.Conv2d) -> bool:
    return min(layer.in_channels, layer.out_channels) >= FEWEST_CHANNELS and layer.padding_mode == "zeros"
