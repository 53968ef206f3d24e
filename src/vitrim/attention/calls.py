"""Finds the attention calls of a model while it runs unchanged.

A `TorchFunctionMode` sees every torch function that this thread calls. It registers no hooks, changes no modules and
patches no globals, so there is nothing to restore. It finds the module that made a call on the Python stack.
"""

from __future__ import annotations

import inspect
import sys
import threading
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vitrim.errors import InputError

SOFTMAX = (F.softmax, torch.softmax, torch.Tensor.softmax, torch.special.softmax)
ATTENTION = frozenset({F.scaled_dot_product_attention, F.multi_head_attention_forward, *SOFTMAX})
HEAD_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads")


@dataclass(frozen=True)
class Caller:
    """The module that made an attention call."""

    layer: str
    """Name of the module, as in `model.named_modules()`. "" is the model itself."""
    module: nn.Module
    images: int | None
    """Number of images that the model was called with; None if it is not known."""
    called: bool
    """Whether the call was made inside a call of the module, not of one of its methods."""

    @property
    def heads(self) -> int:
        """Number of heads that the module states, for weights without a heads axis; 1 if it states none."""
        counts = (getattr(self.module, name, None) for name in HEAD_COUNTS)
        return next((count for count in counts if isinstance(count, int)), 1)


class AttentionMode(TorchFunctionMode):
    """Passes each attention call of `model` to `attend` or `weigh`. All other calls run unchanged.

    Three kinds of attention are found: `scaled_dot_product_attention`, `torch.nn.MultiheadAttention`, and modules that
    compute the softmax over (B, heads, queries, keys) themselves. `layers` selects layers by name patterns.
    """

    def __init__(self, model: nn.Module, layers: str | Sequence[str] | None = None) -> None:
        super().__init__()
        self.names = module_names(model)
        self.layers = [layers] if isinstance(layers, str) else layers

    def attend(self, caller: Caller, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """Return the output of `scaled_dot_product_attention(*args, **kwargs)`, (…, H, L, E)."""
        return F.scaled_dot_product_attention(*args, **kwargs)

    def weigh(self, caller: Caller, logits: Tensor, output: Tensor, heads: int) -> Tensor:
        """Return the softmax weights of a module that computed `output = softmax(logits)`, of the same shape."""
        return output

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in ATTENTION:  # nearly every call: on a GPU the processor's time for it counts
            return func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return self._dot_product(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            return self._multi_head(args, dict(kwargs))
        return self._softmax(func, args, dict(kwargs))

    def _dot_product(self, *args: Any, **kwargs: Any) -> Tensor:
        caller = self._caller()
        if caller is None:
            return F.scaled_dot_product_attention(*args, **kwargs)
        return self.attend(caller, args, kwargs)

    def _softmax(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], heads: int | None = None) -> Tensor:
        output = func(*args, **kwargs)
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        if heads is None and not _looks_like_attention(output, dim):
            return output
        caller = self._caller()
        if caller is None:
            return output
        return self.weigh(caller, args[0] if args else kwargs["input"], output, heads or caller.heads)

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
            "scaled_dot_product_attention": self._dot_product,
            "softmax": softmax,
            "has_torch_function": lambda _: False,
        }
        own = types.FunctionType(function.__code__, replaced, function.__name__, function.__defaults__)
        own.__kwdefaults__ = function.__kwdefaults__
        return own(*args, **kwargs)

    def _caller(self) -> Caller | None:
        """The innermost module of the model on the stack. None if there is none, or if `layers` does not select it."""
        found, images, called = None, None, False
        frame: types.FrameType | None = sys._getframe(2)
        while frame is not None:
            code = frame.f_code
            if found is not None and code.co_name != "_call_impl":  # a frame's variables take time to list
                frame = frame.f_back
                continue
            first = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
            if isinstance(first, nn.Module) and id(first) in self.names and not isinstance(first, nn.Softmax):
                if found is None:
                    found = first
                    name = self.names[id(first)]
                    if not (self.layers is None or any(fnmatchcase(name, pattern) for pattern in self.layers)):
                        return None
                if code.co_name == "_call_impl":  # the outermost one is the call of the model
                    images = _first_length(frame.f_locals)
                    called = called or first is found
            frame = frame.f_back
        return None if found is None else Caller(self.names[id(found)], found, images, called)


def module_names(model: nn.Module) -> dict[int, str]:
    """Name of each module of the model, by `id`, without the prefixes that `torch.compile` adds."""
    return {id(module): name.replace("_orig_mod.", "") for name, module in model.named_modules()}


def title_of(model: nn.Module) -> str:
    """Name of a model for people: the title of a network of ours or an adapted one, else its class."""
    title = getattr(model, "title", None)
    return title if isinstance(title, str) else type(model).__name__


def _looks_like_attention(output: Any, dim: Any) -> bool:
    """True for a softmax over the last axis of (B, heads, queries, keys), or of square maps without a heads axis."""
    if not isinstance(output, Tensor) or output.ndim < 3 or dim not in (-1, output.ndim - 1):
        return False
    return output.ndim > 3 or output.shape[-1] == output.shape[-2] > 1


def _first_length(arguments: Mapping[str, Any]) -> int | None:
    """Length of the first tensor among the arguments of a module's call."""
    given = (*arguments.get("args", ()), *arguments.get("kwargs", {}).values())
    tensors = (value for value in given if isinstance(value, Tensor) and not value.is_nested and value.ndim)
    return next((len(value) for value in tensors), None)


_lock = threading.Lock()
_inside = 0
_prior: Any = None


@contextmanager
def uncompiled() -> Iterator[None]:
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
                    "attention cannot be captured or changed inside a compiled function: "
                    "open the context around the call of that function"
                ) from error
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _prior.__exit__(None, None, None)
