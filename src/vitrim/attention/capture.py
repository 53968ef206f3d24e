"""Passes the softmax weights of every attention call of a model to a reducer while the model runs unchanged.

A `TorchFunctionMode` sees every torch function that this thread calls. If the function is attention, the mode runs it
unchanged and computes the weights separately. The mode registers no hooks, changes no modules and patches no globals,
so there is nothing to restore. It finds the module that made the call on the Python stack.
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
    captured = Captured()
    mode = _CaptureMode(model, reducer or _keep, [layers] if isinstance(layers, str) else layers, captured)
    with _uncompiled(), mode:
        yield captured
    if not captured.counts:
        raise InputError(_nothing_captured(model, layers))


def module_names(model: nn.Module) -> dict[int, str]:
    """Name of each module of the model, by `id`, without the prefixes that `torch.compile` adds."""
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
        """Run torch's function with its attention and softmax replaced by those of this mode.

        A mode sees this function as one call and does not see the calls inside it. So its code runs with a changed
        copy of its globals. `torch.nn.functional` itself does not change, because other threads use it.
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
        """The innermost module of the model on the stack. None if there is none, or if `layers` does not select it."""
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
    """True for a softmax over the last axis of (B, heads, queries, keys), or of square maps without a heads axis."""
    if not isinstance(output, Tensor) or output.ndim < 3 or dim not in (-1, output.ndim - 1):
        return False
    return output.ndim > 3 or output.shape[-1] == output.shape[-2] > 1


def _heads(module: nn.Module) -> int:
    """Number of heads that a module states, for weights without a heads axis; 1 if it states none."""
    counts = (getattr(module, name, None) for name in HEAD_COUNTS)
    return next((count for count in counts if isinstance(count, int)), 1)


def _nothing_captured(model: nn.Module, layers: str | Sequence[str] | None) -> str:
    name = type(model).__name__
    if isinstance(model, torch.jit.ScriptModule):
        return f"no attention was captured: {name} is TorchScript, which hides its calls; use the Python model"
    if layers is not None:
        return f"no attention was captured: {name} made no attention call in a layer that matches {layers!r}"
    return (
        f"no attention was captured: {name} did not run inside the context, or was compiled for the first time inside "
        "it, or has no attention, or hides it in a custom kernel; use a model that calls scaled_dot_product_attention, "
        "MultiheadAttention or a softmax over (batch, heads, queries, keys)"
    )


_lock = threading.Lock()
_inside = 0
_prior: Any = None


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Run compiled models uncompiled, because the mode does not see calls inside compiled code.

    torch has one such setting for the whole process. The first open capture sets it, and the last one restores it.
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
                raise InputError(
                    "capture_attention was opened inside a compiled function: open it around the call of that function"
                ) from error
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _prior.__exit__(None, None, None)
