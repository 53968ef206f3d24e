"""Runs a model several times on the same images and computes what comes before a changed block only once.

The first run records the outputs of all torch functions. A later run takes the recorded outputs up to the block that is
changed, and computes the rest. It needs no knowledge of the model. Outputs that nothing uses any more at that block are
not kept; an empty tensor of the same shape takes their place.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vitrim.attention.calls import uncompiled
from vitrim.attention.exchange import ExchangeMode
from vitrim.attention.forward import as_written, evaluating
from vitrim.config.names import ExchangeForm


@dataclass(frozen=True)
class Intervention:
    """A change of the attention of some blocks (from 1); without blocks, nothing is changed."""

    blocks: tuple[int, ...] = ()
    form: ExchangeForm = "identity"
    maps: Mapping[int, Tensor] | None = None
    """For `constant`: block to (heads, N, N)."""


@torch.no_grad()
def run_interventions(
    model: nn.Module, run: Callable[[], Tensor], images: Tensor, interventions: Sequence[Intervention]
) -> Iterator[Tensor]:
    """Yield the output of `run`, which calls `model` on `images`, unchanged and then with each intervention.

    The model runs in eval mode. Its work before the first changed block is done once, where that can be shared; the
    outputs are the same bits as without sharing.

    Raises:
        InputError: as `vitrim.without_exchange`.
    """
    model = as_written(model)
    recorder = _Recorder([images, *model.parameters(), *model.buffers()])
    with evaluating(model), uncompiled():
        with recorder, ExchangeMode(model, (), reach=recorder.mark):
            untouched = run()
        yield untouched
        for each in interventions:
            mode = ExchangeMode(model, each.blocks, each.form, maps=each.maps)
            if not each.blocks:
                yield untouched
                continue
            output = recorder.replayed(min(each.blocks), lambda mode=mode: _within(mode, run))  # type: ignore[misc]
            if output is None:
                output = _within(mode, run)
            mode.check_reached()
            yield output


def _within(mode: TorchFunctionMode, run: Callable[[], Tensor]) -> Tensor:
    with mode:
        return run()


@dataclass(frozen=True)
class _Mark:
    """The state in front of the attention of one block."""

    calls: int
    """Number of recorded calls before it."""
    kept: dict[int, Tensor]
    """Outputs that the model still holds here, by number; each with the version that it had."""
    versions: dict[int, int]


class _Dead:
    """A tensor that the model does not hold any more."""

    def __init__(self, tensor: Tensor) -> None:
        self.shape, self.dtype, self.device = tensor.shape, tensor.dtype, tensor.device

    def empty(self) -> Tensor:
        return torch.empty((), dtype=self.dtype, device=self.device).expand(self.shape)


class _Recorder(TorchFunctionMode):
    """Records the outputs of torch functions by number, with weak references to tensors."""

    def __init__(self, known: Sequence[Tensor]) -> None:
        super().__init__()
        self.functions: list[Any] = []
        self.outputs: list[Any] = []  # as returned, with the number of a tensor in its place
        self.tensors: list[weakref.ref[Tensor]] = []
        self.dead: list[_Dead] = []
        self.known: dict[int, weakref.ref[Tensor]] = {id(tensor): weakref.ref(tensor) for tensor in known}
        self.marks: dict[int, _Mark] = {}
        self.shared = True

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # a tensor that no torch function made (a custom kernel) cannot be replaced
        self.shared = self.shared and all(map(self._is_known, _tensors((*args, *kwargs.values()))))
        output = func(*args, **kwargs)
        self.functions.append(func)
        self.outputs.append(_mapped(output, Tensor, self._number))
        return output

    def mark(self, block: int) -> None:
        """Keep what the model holds now, in front of the attention of `block`."""
        if block in self.marks:  # a block that runs twice
            self.shared = False
            return
        alive = {n: tensor for n, ref in enumerate(self.tensors) if (tensor := ref()) is not None}
        with torch._C.DisableTorchFunction():
            versions = {n: tensor._version for n, tensor in alive.items()}
        self.marks[block] = _Mark(len(self.functions), alive, versions)

    def replayed(self, block: int, run: Callable[[], Tensor]) -> Tensor | None:
        """Return the output of `run` with the recorded outputs before `block`; None if they cannot be used."""
        if not self.shared or block not in self.marks:
            return None
        mark = self.marks[block]
        try:
            with _Replay(self, mark):
                output = run()
        except _DivergedError:
            self.shared = False
            return None
        if any(tensor._version != mark.versions[n] for n, tensor in mark.kept.items()):  # the model changed it in place
            self.shared = False
            return None
        return output

    def _is_known(self, tensor: Tensor) -> bool:
        ref = self.known.get(id(tensor))
        return ref is not None and ref() is tensor

    def _number(self, tensor: Tensor) -> _Number:
        self.known[id(tensor)] = weakref.ref(tensor)
        self.tensors.append(weakref.ref(tensor))
        with torch._C.DisableTorchFunction():
            self.dead.append(_Dead(tensor))
        return _Number(len(self.tensors) - 1)


class _Replay(TorchFunctionMode):
    """Returns recorded outputs up to a mark; computes afterwards."""

    def __init__(self, recorder: _Recorder, mark: _Mark) -> None:
        super().__init__()
        self.recorder, self.mark, self.place = recorder, mark, 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        place = self.place
        if place >= self.mark.calls:
            return func(*args, **(kwargs or {}))
        self.place += 1
        if self.recorder.functions[place] != func:
            raise _DivergedError
        return _mapped(self.recorder.outputs[place], _Number, self._tensor)

    def _tensor(self, number: _Number) -> Tensor:
        kept = self.mark.kept.get(number.value)
        return self.recorder.dead[number.value].empty() if kept is None else kept


@dataclass(frozen=True)
class _Number:
    """The place of a recorded tensor."""

    value: int


class _DivergedError(Exception):
    """A later run of the model calls other functions than the recorded one."""


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from _tensors(value)


def _mapped(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """`value` with every `kind` inside tuples and lists changed. Named tuples keep their type."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, list):
        return [_mapped(each, kind, change) for each in value]
    if isinstance(value, tuple) and not isinstance(value, torch.Size):
        inner = [_mapped(each, kind, change) for each in value]
        return type(value)(inner) if type(value) is tuple or hasattr(value, "n_fields") else type(value)(*inner)
    return value
