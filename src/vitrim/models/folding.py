"""Folds the fixed parts of a trained network (batch norms, weight standardisation) into its convolutions."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from timm.layers import BatchNormAct2d, Conv2dSame, StdConv2d, StdConv2dSame
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vitrim.models.adapt import Adapted
from vitrim.models.network import Network
from vitrim.models.resnet_stem import ReleaseStdConv2d, standardised

N = TypeVar("N", bound=Network | Adapted)


def fold_for_inference(network: N) -> N:
    """Return a copy in eval mode, for prediction only, that computes the same logits (to rounding) with less work.

    The copy standardises weights once, not at every call. Each batch norm after a convolution becomes part of the
    convolution. Other batch norms (DenseNet has some) stay. `network` does not change.
    """
    folded: N = copy.deepcopy(network)
    folded.eval()
    with torch.no_grad():
        for name, layer in list(folded.named_modules()):
            if isinstance(layer, (StdConv2d, StdConv2dSame)):
                folded.set_submodule(name, _plain(layer))
        for conv, norm in _pairs(folded):
            layer, after = folded.get_submodule(conv), folded.get_submodule(norm)
            folded.set_submodule(conv, fuse_conv_bn_eval(layer, after))  # type: ignore[type-var,arg-type]
            folded.set_submodule(norm, after.act if isinstance(after, BatchNormAct2d) else nn.Identity())
    folded.requires_grad_(False)
    return folded


def _plain(layer: StdConv2d | StdConv2dSame) -> nn.Conv2d:
    """Return a plain convolution with the standardised weights of `layer`."""
    if isinstance(layer, ReleaseStdConv2d):
        weight = standardised(layer.weight)
    else:
        flat = layer.weight.reshape(1, layer.out_channels, -1)
        weight = F.batch_norm(flat, None, None, training=True, momentum=0.0, eps=layer.eps).reshape_as(layer.weight)
    kind = Conv2dSame if getattr(layer, "same_pad", False) else nn.Conv2d
    plain = kind(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
        bias=layer.bias is not None,
        device="meta",
    )
    plain.weight, plain.bias = nn.Parameter(weight), layer.bias
    return plain


def _pairs(network: Network | Adapted) -> list[tuple[str, str]]:
    """Return the names (convolution, batch norm) of each pair that runs in sequence and is called exactly once.

    The network, in eval mode, segments one empty image: with a small network this is faster than a run without data.
    """
    calls: list[str] = []
    fed: dict[str, str] = {}

    def note(name: str, layer: nn.Module) -> Any:
        def after(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            calls.append(name)
            if isinstance(layer, nn.Conv2d):
                output.made_by = name  # type: ignore[attr-defined]
            elif made_by := getattr(inputs[0], "made_by", None):
                fed[name] = made_by

        return layer.register_forward_hook(after)

    hooks = [
        note(name, layer) for name, layer in network.named_modules() if isinstance(layer, (nn.Conv2d, nn.BatchNorm2d))
    ]
    try:
        network(torch.zeros(1, *network.example.shape[1:], device=next(network.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return [(conv, norm) for norm, conv in fed.items() if calls.count(norm) == calls.count(conv) == 1]
