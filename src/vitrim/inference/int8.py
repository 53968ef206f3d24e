"""Converts a network to 8-bit integer products, for prediction on a CPU.

Weights are rounded once, with one scale for each output channel. The input of a layer is rounded at every call, to 256
steps between the smallest and the largest value in the batch. The products are summed in 32 bits and converted to
float32. A processor without dot products of 8-bit integers (VNNI) sums pairs in 16 bits first, and cuts what is larger.
With weights of 7 bits no pair is larger, so the sums are exact there too.
"""

from __future__ import annotations

import copy
from functools import cache

import torch
from torch import Tensor, nn

from vitrim.errors import InputError
from vitrim.models.dry_run import run
from vitrim.models.layers import UpConvs, double_by_interpolation
from vitrim.models.network import Network

WEIGHT_STEPS = (127, 63)
"""Largest weight in steps: 8 bits, and the 7 bits whose products are exact on every processor."""

FEWEST_CHANNELS = 32
"""Convolutions with fewer input or output channels stay in float32: they read the image itself, or cost little."""


def to_int8(network: Network) -> Network:
    """Return a copy, for prediction on this CPU only, with linear layers and most convolutions in 8-bit integers.

    The CNNs before or beside a transformer stay in float32 (`Network.float32_parts`). They have about 50 layers, and
    rounding errors add up: with the CNN in integers, the Dice of TransUNet's labels against its float32 labels falls
    to 0.963; with only the later layers in integers it is 0.997. Their feature maps are also large with few channels,
    so rounding takes as much time as the integer products save.

    `network` must be folded (`vitrim.models.folding`) and in eval mode; it does not change. The logits are close to
    the float32 logits, not equal, and depend slightly on the other images of the batch. Weights have 8 bits where this
    processor multiplies them exactly, and 7 bits elsewhere. Raises InputError if it multiplies neither exactly.
    """
    largest_exact_weight()
    rounded = copy.deepcopy(network)
    called = _called_layers(network)
    for name, layer in list(rounded.named_modules()):
        if type(layer) is nn.Linear and name in called:
            rounded.set_submodule(name, Int8Linear(layer))
        elif type(layer) is nn.Conv2d and name.split(".")[0] not in network.float32_parts and _is_wide(layer):
            rounded.set_submodule(name, Int8Conv2d(layer))
    for name, stage in list(rounded.named_modules()):
        if type(stage) is UpConvs and isinstance(_layers(stage)[0], Int8Conv2d):
            rounded.set_submodule(name, Int8UpConvs(stage))
    return rounded


@cache
def largest_exact_weight() -> int:
    """Return the largest of WEIGHT_STEPS whose products are exact on this processor, found by trying them.

    Raises InputError if there is none, or if this torch has no such products.
    """
    values = torch.full((4, 512), 255, dtype=torch.uint8)
    for most in WEIGHT_STEPS:
        weight = torch.full((32, 512), most, dtype=torch.int8)
        try:
            found = _product(values, 1.0, 0, _packed(weight), torch.ones(32), torch.zeros(32, dtype=torch.int32), None)
        except (RuntimeError, AttributeError, TypeError) as error:
            raise InputError(
                f"torch {torch.__version__} has no products of 8-bit integers on this processor, or calls them in "
                "another way; choose another precision"
            ) from error
        if bool((found == 255.0 * most * 512).all()):
            return most
    raise InputError("this processor's products of 8-bit integers are not exact; choose another precision")


def _packed(weight: Tensor) -> Tensor:
    """The weights (out, in), int8, of a linear layer in oneDNN's order."""
    return torch.ops.onednn.qlinear_prepack(weight, None)


def _product(
    steps: Tensor, scale: float, zero: int, weight: Tensor, scales: Tensor, zeros: Tensor, bias: Tensor | None
) -> Tensor:
    """The product of steps (..., in), uint8, and packed weights: (..., out), float32."""
    return torch.ops.onednn.qlinear_pointwise(
        steps, scale, zero, weight, scales, zeros, bias, 1.0, 0, torch.float32, "none", [], ""
    )


class Int8Linear(nn.Module):
    """A linear layer in 8-bit integers: (..., in) float32 to (..., out) float32."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight, self.scales = _rounded(layer.weight)
        self.zeros = torch.zeros(len(weight), dtype=torch.int32)
        self.weight = _packed(weight)
        self.bias = layer.bias

    def forward(self, input: Tensor) -> Tensor:
        """Return the rounded product."""
        steps, scale, zero = quantised(input)
        return _product(steps, scale, zero, self.weight, self.scales, self.zeros, self.bias)


class Int8Conv2d(nn.Module):
    """A convolution in 8-bit integers: (B, in, H, W) float32 to (B, out, H', W') float32."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        assert not isinstance(layer.padding, str)
        self.how = (list(layer.stride), list(layer.padding), list(layer.dilation), layer.groups)
        weight, self.scales = _rounded(layer.weight)
        self.zeros = torch.zeros(len(weight), dtype=torch.int32)
        self.weight = torch.ops.onednn.qconv_prepack(weight, self.scales, 1.0, 0, *self.how, None)
        self.bias = layer.bias
        # oneDNN's 1 x 1 convolution of many channels is 8 times slower if zero is step 0, as it is after a ReLU
        self.least_zero = int(layer.kernel_size == (1, 1))

    def forward(self, input: Tensor) -> Tensor:
        """Return the rounded convolution."""
        return self.of_steps(*quantised(input.contiguous(memory_format=torch.channels_last), self.least_zero))

    def of_steps(self, steps: Tensor, scale: float, zero: int) -> Tensor:
        """Return the convolution of the values scale * (steps - zero)."""
        return torch.ops.onednn.qconv_pointwise(
            *(steps, scale, zero, self.weight, self.scales, self.zeros, self.bias, *self.how),
            *(1.0, 0, torch.float32, "none", [], ""),
        )


class Int8UpConvs(nn.Module):
    """`UpConvs` with an `Int8Conv2d` as first convolution. Its input exists at full size only as 8-bit steps.

    Interpolated values stay within the range of the input, so the scale is known before interpolation.
    """

    def __init__(self, stage: UpConvs) -> None:
        super().__init__()
        first, *others = _layers(stage)
        assert isinstance(first, Int8Conv2d)
        self.first, self.others = first, nn.Sequential(*others)

    def forward(self, input: Tensor, skip: Tensor | None = None) -> Tensor:
        """Return the rounded result of `UpConvs`."""
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
    """Return steps (uint8, shape and layout of `values`), scale and zero, with values = scale * (steps - zero).

    The value 0 is exactly one step, number `least_zero` or higher, so that padding stays exact. If `values` are not
    all finite, the scale is not finite.
    """
    if not values.is_contiguous(memory_format=torch.channels_last if values.ndim == 4 else torch.contiguous_format):
        values = values.contiguous()
    steps = torch.empty_like(values, dtype=torch.uint8)
    scale, zero = _scale([values], least_zero)
    for one, into in zip(values, steps, strict=True):  # one image at a time stays in the cache
        _round_into(into, one, scale, zero)
    return steps, scale, zero


def _scale(tensors: list[Tensor], least_zero: int = 0) -> tuple[float, int]:
    """Return the width of 256 steps from the smallest to the largest value in all tensors, and the step of zero."""
    # in memory order: torch's minimum and maximum are many times slower over channels_last
    lows, highs = zip(*(torch.aminmax(_as_it_lies(tensor)) for tensor in tensors), strict=True)
    low, high = float(torch.stack(lows).min().clamp(max=0)), float(torch.stack(highs).max().clamp(min=0))
    low = min(low, -high * least_zero / (255 - least_zero))
    scale = max((high - low) / 255, torch.finfo(torch.float32).tiny)  # NaN stays NaN
    return scale, max(least_zero, round(-low / scale)) if scale < float("inf") else 0


def _round_into(steps: Tensor, values: Tensor, scale: float, zero: int) -> None:
    """Write the steps of `values` into `steps`, which has the same shape."""
    steps.copy_((values * (1 / scale)).add_(zero + 0.5).clamp_(0, 255))


def _as_it_lies(values: Tensor) -> Tensor:
    """Return a view (B, n) of a contiguous or channels_last tensor, in memory order."""
    return (values if values.is_contiguous() else values.permute(0, 2, 3, 1)).view(len(values), -1)


def _called_layers(network: Network) -> set[str]:
    """Names of the linear layers that are called. Of others, a ViT of timm reads the weights itself."""
    called: set[str] = set()
    hooks = [
        layer.register_forward_hook(lambda *_, name=name: called.add(name))
        for name, layer in network.named_modules()
        if type(layer) is nn.Linear
    ]
    try:
        run(network, network.example)
    finally:
        for hook in hooks:
            hook.remove()
    return called


def _layers(stage: UpConvs) -> list[nn.Module]:
    return [layer for part in stage for layer in part.children()]


def _rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights (out, ...) as int8, and the scale of each output channel (out,)."""
    largest = weight.detach().flatten(1).abs().amax(1)
    scales = (largest / largest_exact_weight()).clamp_min(torch.finfo(torch.float32).tiny)
    steps = (weight.detach() / scales.view(-1, *(1,) * (weight.ndim - 1))).round().to(torch.int8)
    return steps, scales


def _is_wide(layer: nn.Conv2d) -> bool:
    return min(layer.in_channels, layer.out_channels) >= FEWEST_CHANNELS and layer.padding_mode == "zeros"
