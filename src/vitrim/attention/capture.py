"""Capture: hand the softmax weights of every attention call of a model to a reducer, while the model runs unchanged.

A `TorchFunctionMode` sees every torch function that is called in this thread. Where one of them is attention, the mode
lets it run as it is and computes the weights beside it. No hook is registered, no module is touched and no global is
patched, so that there is nothing to restore; the module that made the call is read off the Python stack.
"""

from __future__ import annotations

import inspect
import sys
import threading
import types
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vitrim.attention.softmax import Weights, dot_product, parts, written
from vitrim.errors import InputError

SOFTMAX = (F.softmax, torch.softmax, torch.Tensor.softmax, torch.special.softmax)
HEAD_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads")


@dataclass(frozen=True)
class AttentionCall:
    """One call of one attention layer."""

    layer: str
    """Name of the module that made the call, as in `model.named_modules()`; "" is the model itself."""
    index: int
    """How many attention calls of the model came before it inside this context."""
    source: Weights

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, heads, queries, keys), known before the weights are computed."""
        return self.source.shape

    @property
    def device(self) -> torch.device:
        return self.source.device

    @cached_property
    def weights(self) -> Tensor:
        """(B, heads, queries, keys), rows sum to 1; before dropout, float32 or float64, detached, on its device.

        Computed on the first look, from tensors that the model may change afterwards: look inside the reducer.
        """
        return self.source.compute()

    def patches(self, prefix_tokens: int = 0) -> Tensor:
        """The weights without the tokens before the patches, rows renormalised: (B, heads, N, N)."""
        return self.source.compute(skip=prefix_tokens)

    def parts(self, prefix_tokens: int = 0) -> Iterator[tuple[slice, slice, Tensor]]:
        """The same in pieces (images, heads, weights), image after image: what is reduced at once need not be large."""
        for images, heads in parts(self.source):
            yield images, heads, self.source.compute(images, heads, prefix_tokens)


Reducer = Callable[[AttentionCall], Any]


@dataclass
class Captured:
    """What `capture_attention` saw: the reducer's results in the order of the calls."""

    calls: list[tuple[str, Any]] = field(default_factory=list)
    """(layer, result) of every call whose result is not None."""
    counts: Counter[str] = field(default_factory=Counter)
    """How often each layer was called."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the attention layers, in the order in which they were first called."""
        return tuple(self.counts)

    @property
    def results(self) -> list[Any]:
        """The reducer's results, in the order of the calls."""
        return [result for _, result in self.calls]

    def __getitem__(self, layer: str) -> list[Any]:
        """The results of one layer, in the order of its calls; KeyError if it made none."""
        if layer not in self.counts:
            raise KeyError(f"{layer!r} made no attention call; these did: {', '.join(self.counts)}")
        return [result for name, result in self.calls if name == layer]


@contextmanager
def capture_attention(
    model: nn.Module, reducer: Reducer | None = None, *, layers: str | Sequence[str] | None = None
) -> Iterator[Captured]:
    """Hand the softmax weights of each attention layer and call of `model` to `reducer` while the model runs.

        with capture_attention(model) as captured:
            model(images)
        captured.layers, captured.results

    Without a reducer the weights themselves are kept, (B, heads, queries, keys) each; with one, only what it returns
    (nothing where it returns None), so that memory need not grow. `layers` keeps the layers whose name matches one of
    these patterns (`"blocks.*.attn"`). Seen are `scaled_dot_product_attention`, `torch.nn.MultiheadAttention` and
    modules that write the softmax out over (B, heads, queries, keys). The model's output, mode, flags and hooks stay
    as they are; a compiled model runs uncompiled inside the context.

    Raises:
        InputError: if no attention was seen by the end of the context, or it is opened inside a compiled function.

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
    captured = Captured()
    mode = _CaptureMode(model, reducer or _keep, [layers] if isinstance(layers, str) else layers, captured)
    with _uncompiled(), mode:
        yield captured
    if not captured.counts:
        raise InputError(_nothing_captured(model, layers))


def module_names(model: nn.Module) -> dict[int, str]:
    """Name of each module of the model, by `id`, as if nothing had been compiled."""
    return {id(module): name.replace("_orig_mod.", "") for name, module in model.named_modules()}


def _keep(call: AttentionCall) -> Tensor:
    return call.weights


class _CaptureMode(TorchFunctionMode):
    def __init__(self, model: nn.Module, reducer: Reducer, layers: Sequence[str] | None, captured: Captured) -> None:
        super().__init__()
        self.names = module_names(model)
        self.reducer, self.layers, self.captured = reducer, layers, captured

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            return self._sdpa(*args, **kwargs)
        if func in SOFTMAX:
            return self._softmax(func, args, kwargs)
        if func is F.multi_head_attention_forward:
            return self._multi_head(args, kwargs)
        return func(*args, **kwargs)

    def _sdpa(self, *args: Any, **kwargs: Any) -> Tensor:
        output = F.scaled_dot_product_attention(*args, **kwargs)
        caller = self._caller()
        if caller is not None:
            self._reduce(caller, dot_product(*args, **kwargs, heads=_heads(caller.module)))
        return output

    def _softmax(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], heads: int | None = None) -> Tensor:
        output = func(*args, **kwargs)
        logits = args[0] if args else kwargs["input"]
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        if heads is not None or _looks_like_attention(output, dim):
            caller = self._caller()
            if caller is not None:
                self._reduce(caller, written(logits, output, heads=heads or _heads(caller.module)))
        return output

    def _multi_head(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run torch's own function with its attention and softmax replaced by ours.

        The function is one call to a mode: what it calls inside is hidden. So its code runs over a copy of its globals;
        the module `torch.nn.functional` itself, which other threads use, is left alone.
        """
        function = F.multi_head_attention_forward
        heads = inspect.signature(function).bind(*args, **kwargs).arguments["num_heads"]

        def softmax(*a: Any, **k: Any) -> Tensor:
            return self._softmax(F.softmax, a, k, heads)

        replaced = {
            **function.__globals__,
            "scaled_dot_product_attention": self._sdpa,
            "softmax": softmax,
            "has_torch_function": lambda _: False,
        }
        own = types.FunctionType(function.__code__, replaced, function.__name__, function.__defaults__)
        own.__kwdefaults__ = function.__kwdefaults__
        return own(*args, **kwargs)

    def _caller(self) -> _Caller | None:
        """The innermost module of the model on the stack; None if this call is not the model's, or not to be seen."""
        frame = sys._getframe(2)
        while frame is not None:
            code = frame.f_code
            first = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
            if isinstance(first, nn.Module) and id(first) in self.names and not isinstance(first, nn.Softmax):
                name = self.names[id(first)]
                wanted = self.layers is None or any(fnmatchcase(name, pattern) for pattern in self.layers)
                return _Caller(name, first) if wanted else None
            frame = frame.f_back  # type: ignore[assignment]
        return None

    def _reduce(self, caller: _Caller, source: Weights) -> None:
        call = AttentionCall(caller.name, self.captured.counts.total(), source)
        self.captured.counts[caller.name] += 1
        with torch.no_grad(), torch.autocast(source.device.type, enabled=False):
            result = self.reducer(call)
        if result is not None:
            self.captured.calls.append((caller.name, result))


class _Caller(NamedTuple):
    name: str
    module: nn.Module


def _looks_like_attention(output: Any, dim: Any) -> bool:
    """Over the last axis, of (B, heads, queries, keys), or square where there is no axis of heads."""
    if not isinstance(output, Tensor) or output.ndim < 3 or dim not in (-1, output.ndim - 1):
        return False
    return output.ndim > 3 or output.shape[-1] == output.shape[-2] > 1


def _heads(module: nn.Module) -> int:
    """How many heads a module says that it has, for weights without an axis of heads."""
    counts = (getattr(module, name, None) for name in HEAD_COUNTS)
    return next((count for count in counts if isinstance(count, int)), 1)


def _nothing_captured(model: nn.Module, layers: str | Sequence[str] | None) -> str:
    name = type(model).__name__
    if isinstance(model, torch.jit.ScriptModule):
        return f"no attention was captured: {name} is TorchScript, which cannot be looked into; use the Python model"
    if layers is not None:
        return f"no attention was captured: {name} made no attention call in a layer that matches {layers!r}"
    return (
        f"no attention was captured: {name} did not run inside the context, was first compiled there, or calls neither "
        "scaled_dot_product_attention nor MultiheadAttention nor a softmax over (batch, heads, queries, keys), "
        "as networks without attention and those with a fused kernel of their own do"
    )


_lock = threading.Lock()
_inside = 0
_prior: Any = None


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Have compiled models run as they were written: compiled code would not come by the mode.

    torch keeps this setting for the whole process, so the first capture sets it and the last one puts it back.
    """
    global _inside, _prior
    if "torch._dynamo" not in sys.modules:  # nothing has been compiled yet
        yield
        return
    with _lock:
        if _inside == 0:
            try:
                _prior = torch.compiler.set_stance("force_eager")
            except RuntimeError as error:
                raise InputError("capture_attention inside a compiled function: put it around the call") from error
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _prior.__exit__(None, None, None)
