"""Passes the softmax weights of every attention call of a model to a reducer while the model runs unchanged.

The attention itself runs unchanged; its weights are computed separately (`vitrim.attention.calls` finds the calls).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrim.attention.calls import AttentionMode, Caller, title_of, uncompiled
from vitrim.attention.softmax import Weights, dot_product, parts, written
from vitrim.errors import InputError


@dataclass(frozen=True)
class AttentionCall:
    """One call of one attention layer."""

    layer: str
    """Name of the module that made the call, as in `model.named_modules()`. "" is the model itself."""
    index: int
    """Number of attention calls that the model made earlier in this context."""
    source: Weights

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, heads, queries, keys). It is known before the weights are computed."""
        return self.source.shape

    @property
    def device(self) -> torch.device:
        return self.source.device

    @cached_property
    def weights(self) -> Tensor:
        """Softmax weights before dropout, (B, heads, queries, keys). Rows sum to 1.

        They are float32 or float64, detached, on the device of the call. They are computed at the first access. Access
        them inside the reducer: the model may change the tensors later.
        """
        return self.source.compute()

    def patches(self, prefix_tokens: int = 0) -> Tensor:
        """The weights without the first `prefix_tokens` tokens: (B, heads, N, N). Rows are scaled to sum to 1."""
        return self.source.compute(skip=prefix_tokens)

    def parts(self, prefix_tokens: int = 0) -> Iterator[tuple[slice, slice, Tensor]]:
        """The weights of `patches` in pieces (images, heads, weights), image after image, to limit memory."""
        for images, heads in parts(self.source):
            yield images, heads, self.source.compute(images, heads, prefix_tokens)


Reducer = Callable[[AttentionCall], Any]


@dataclass
class Captured:
    """Results of `capture_attention`: those of the reducer, in the order of the calls."""

    calls: list[tuple[str, Any]] = field(default_factory=list)
    """(layer, result) of every call whose result is not None."""
    counts: Counter[str] = field(default_factory=Counter)
    """Number of attention calls of each layer."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the attention layers, in the order in which they were first called."""
        return tuple(self.counts)

    @property
    def results(self) -> list[Any]:
        """The reducer's results, in the order of the calls."""
        return [result for _, result in self.calls]

    def __getitem__(self, layer: str) -> list[Any]:
        """The results of one layer, in the order of its calls. Raises KeyError if the layer made no call."""
        if layer not in self.counts:
            raise KeyError(f"{layer!r} made no attention call; these did: {', '.join(self.counts)}")
        return [result for name, result in self.calls if name == layer]


@contextmanager
def capture_attention(
    model: nn.Module, reducer: Reducer | None = None, *, layers: str | Sequence[str] | None = None
) -> Iterator[Captured]:
    """Pass the softmax weights of each attention call of `model` to `reducer` while the model runs.

    Without a reducer, the weights of each call are kept, (B, heads, queries, keys). With a reducer, only its results
    are kept, so memory does not grow; a result of None is dropped. `layers` selects layers by name patterns such as
    `"blocks.*.attn"`. Three kinds of attention are captured: `scaled_dot_product_attention`,
    `torch.nn.MultiheadAttention`, and modules that compute the softmax over (B, heads, queries, keys) themselves.
    The output, mode, flags and hooks of the model do not change. A compiled model runs uncompiled inside the context.

    Raises:
        InputError: if the context ends and no attention was captured, or if it is opened inside a compiled function.

    Example:
        >>> import torch, vitrim
        >>> network = vitrim.create_model("unetr2d", num_classes=2, size="micro", width=0.125, image_size=32, depth=2)
        >>> with vitrim.capture_attention(network) as captured:
        ...     logits = network(torch.randn(1, 3, 32, 32))
        >>> captured.layers
        ('vit.blocks.0.attn', 'vit.blocks.1.attn')
        >>> captured.results[0].shape
        torch.Size([1, 4, 4, 4])
    """
    with Capture(model, layers).into(reducer or _keep) as captured:
        yield captured


def _keep(call: AttentionCall) -> Tensor:
    return call.weights


class Capture(AttentionMode):
    """The mode behind `capture_attention`, for several runs of one model."""

    def __init__(self, model: nn.Module, layers: str | Sequence[str] | None = None) -> None:
        super().__init__(model, layers)
        self.model, self.asked = model, layers
        self.reducer: Reducer = _keep
        self.captured = Captured()
        self.callers: dict[str, Caller] = {}
        self._now: list[Caller] = []

    @contextmanager
    def into(self, reducer: Reducer, only: Sequence[Caller] | None = None) -> Iterator[Captured]:
        """Do what `capture_attention` does, once. `only`: those who make attention calls, if they are known."""
        self.reducer, self.captured = reducer, Captured()
        with uncompiled(), self if only is None else self._inside(only):
            yield self.captured
        if not self.captured.counts:
            raise InputError(_nothing_captured(self.model, self.asked))

    @contextmanager
    def _inside(self, callers: Sequence[Caller]) -> Iterator[None]:
        """See only the calls inside these modules: on a GPU, the time in which this mode passes on other calls counts.

        Their hooks are removed in the end. Calls in other threads are not seen.
        """
        thread, running = threading.get_ident(), self._now
        known = {caller.module: caller for caller in callers}

        def before(module: nn.Module, _: Any) -> None:
            if threading.get_ident() == thread:
                if not running:
                    self.__enter__()
                running.append(known[module])

        def after(module: nn.Module, *_: Any) -> None:
            if threading.get_ident() == thread and running and running[-1].module is module:
                running.pop()
                if not running:
                    self.__exit__(None, None, None)

        hooks = [module.register_forward_pre_hook(before, prepend=True) for module in known]
        hooks += [module.register_forward_hook(after, always_call=True) for module in known]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _caller(self) -> Caller | None:
        return self._now[-1] if self._now else super()._caller()

    def attend(self, caller: Caller, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        output = F.scaled_dot_product_attention(*args, **kwargs)
        self._reduce(caller, dot_product(*args, **kwargs, heads=caller.heads))
        return output

    def weigh(self, caller: Caller, logits: Tensor, output: Tensor, heads: int) -> Tensor:
        self._reduce(caller, written(logits, output, heads=heads))
        return output

    def _reduce(self, caller: Caller, source: Weights) -> None:
        call = AttentionCall(caller.layer, self.captured.counts.total(), source)
        self.captured.counts[caller.layer] += 1
        self.callers[caller.layer] = caller
        with torch.no_grad(), torch.autocast(source.device.type, enabled=False):
            result = self.reducer(call)
        if result is not None:
            self.captured.calls.append((caller.layer, result))


def _nothing_captured(model: nn.Module, layers: str | Sequence[str] | None) -> str:
    name = title_of(model)
    if isinstance(model, torch.jit.ScriptModule):
        return f"no attention was captured: {name} is TorchScript, which hides its calls; use the Python model"
    if layers is not None:
        return f"no attention was captured: {name} made no attention call in a layer that matches {layers!r}"
    return (
        f"no attention was captured: {name} did not run inside the context, or was compiled for the first time inside "
        "it, or has no attention, or hides it in a custom kernel; use a model that calls scaled_dot_product_attention, "
        "MultiheadAttention or a softmax over (batch, heads, queries, keys)"
    )
