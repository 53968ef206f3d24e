"""Several runs of one model: after the first, only the layers that make attention calls are watched."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitrim.attention.calls import AttentionMode
from vitrim.attention.forward import captured_runs
from vitrim.errors import InputError


class Attention(nn.Module):
    """Attention over (B, 2, 5, 3); `method` calls it without a call of the module."""

    def forward(self, tokens: Tensor) -> Tensor:
        return self.method(tokens)

    def method(self, tokens: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(tokens, tokens, tokens)


class Model(nn.Module):
    """Two attention layers; `by_method` and `skip` say how the second one is used."""

    def __init__(self, by_method: bool = False) -> None:
        super().__init__()
        self.first, self.second = Attention(), Attention()
        self.by_method, self.skip, self.fail = by_method, False, False

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.first(images.exp())
        if self.fail:
            raise RuntimeError("no")
        if self.skip:
            return tokens
        return self.second.method(tokens) if self.by_method else self.second(tokens)


def batches() -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(n, 2, 5, 3) for n in (4, 4, 2)]


def seen(model: nn.Module, reducer: Any = lambda call: (call.layer, call.weights)) -> list[Any]:
    with captured_runs(model) as run:
        return [run(batch, reducer).results for batch in batches()]


@pytest.mark.parametrize("by_method", [False, True])
def test_every_run_sees_what_a_run_of_its_own_sees(by_method: bool) -> None:
    model = Model(by_method)
    for batch, found in zip(batches(), seen(model), strict=True):
        with captured_runs(model) as run:
            alone = run(batch, lambda call: (call.layer, call.weights)).results
        assert [layer for layer, _ in found] == [layer for layer, _ in alone] == ["first", "second"]
        for (_, one), (_, other) in zip(found, alone, strict=True):
            assert torch.equal(one, other)
            assert len(one) == len(batch)


def test_later_runs_watch_the_attention_layers_alone_and_leave_no_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    original = AttentionMode.__torch_function__

    def counted(self: Any, func: Any, *rest: Any) -> Any:
        calls.append(func)
        return original(self, func, *rest)

    monkeypatch.setattr(AttentionMode, "__torch_function__", counted)
    model = Model()
    seen(model, lambda call: True)
    assert calls.count(F.scaled_dot_product_attention) == 6
    assert calls.count(Tensor.exp) == 1
    for layer in (model.first, model.second):
        assert not layer._forward_hooks
        assert not layer._forward_pre_hooks


def test_another_layer_than_in_the_first_run_is_an_error() -> None:
    model = Model()
    with captured_runs(model) as run:
        run(batches()[0], lambda call: True)
        model.skip = True
        with pytest.raises(InputError, match="2 calls of 2 layers in the first, 1 call of 1 layer in a later one"):
            run(batches()[1], lambda call: True)


def test_after_a_run_that_failed_the_next_one_is_seen() -> None:
    model = Model()
    with captured_runs(model) as run:
        run(batches()[0], lambda call: True)
        model.fail = True
        with pytest.raises(InputError, match="cannot take images"):
            run(batches()[1], lambda call: True)
        model.fail = False
        assert run(batches()[2], lambda call: call.layer).results == ["first", "second"]
    assert not model.first._forward_hooks
