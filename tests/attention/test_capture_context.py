"""What a capture sees of a model: layers, threads, gradients, precision, compiled code. Errors leave nothing behind."""

from __future__ import annotations

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.attention.test_capture import HEADS, SIZE, B, Caller, N, Writer, assert_close, explicit, qkv
from vitrim.attention.capture import AttentionCall, capture_attention
from vitrim.errors import InputError


def test_the_caller_is_named_and_others_are_not_seen() -> None:
    model = nn.ModuleDict({"mine": nn.Sequential(Caller()), "chosen": Caller()})
    stranger = Caller()
    query, key, value = qkv()
    with capture_attention(model) as seen:
        stranger(query, key, value)
        model["mine"][0](query, key, value)  # type: ignore[index]
        model["chosen"](query, key, value)
        F.scaled_dot_product_attention(query, key, value)
    assert seen.layers == ("mine.0", "chosen")
    with capture_attention(model, layers="cho*") as seen:
        model["mine"][0](query, key, value)  # type: ignore[index]
        model["chosen"](query, key, value)
    assert seen.layers == ("chosen",)
    assert len(seen["chosen"]) == 1


def test_a_reducer_takes_each_call_and_only_its_result_is_kept() -> None:
    model, calls = Caller(), []

    def reduce(call: AttentionCall) -> float | None:
        calls.append((call.index, call.shape))
        return float(call.weights.mean()) if call.index else None

    with capture_attention(model, reduce) as seen:
        model(*qkv())
        model(*qkv())
    assert calls == [(0, (B, HEADS, N, N)), (1, (B, HEADS, N, N))]
    assert seen.results == [pytest.approx(1 / N)]
    assert seen.counts[""] == 2


def test_parts_together_are_the_whole_without_the_tokens_before(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in (1, 4 * N * N * 3, 4 * N * N * HEADS, 2**20):  # one head at a time to all at once
        monkeypatch.setattr("vitrim.attention.softmax.PART_BYTES", {"cpu": limit})
        whole, together = [], torch.zeros(B, HEADS, N - 2, N - 2)

        def reduce(call: AttentionCall, whole: list[Tensor] = whole, together: Tensor = together) -> None:
            whole.append(call.weights[..., 2:, 2:])
            for images, heads, weights in call.parts(prefix_tokens=2):
                together[images, heads] = weights

        bias = torch.randn(1, HEADS, N, N, generator=torch.Generator().manual_seed(1))
        for model, options in ((Caller(), {}), (Caller(), {"attn_mask": bias}), (Writer(nn.Softmax(dim=-1)), {})):
            with capture_attention(model, reduce):
                model(*qkv(), **options)
            expected = whole.pop()
            torch.testing.assert_close(together, expected / expected.sum(dim=-1, keepdim=True))


def test_nothing_captured_is_an_error_that_says_why() -> None:
    model = nn.Conv2d(1, 1, 1)
    with pytest.raises(InputError, match="no attention was captured: Conv2d"), capture_attention(model):
        model(torch.zeros(1, 1, 2, 2))
    caller = Caller()
    with (
        pytest.raises(InputError, match=r"no attention call in a layer that matches 'blocks\.\*'"),
        capture_attention(caller, layers="blocks.*"),
    ):
        caller(*qkv())


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_are_refused() -> None:
    ragged = torch.nested.nested_tensor([torch.randn(HEADS, 3, SIZE), torch.randn(HEADS, 5, SIZE)])
    model = Caller()
    with pytest.raises(InputError, match="nested"), capture_attention(model):
        model(ragged, ragged, ragged)


def test_an_exception_passes_and_leaves_nothing_behind() -> None:
    model = nn.Sequential(Caller()).train()
    with pytest.raises(ZeroDivisionError), capture_attention(model, lambda call: 1 / 0):
        model[0](*qkv())
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not torch.overrides.has_torch_function((torch.zeros(1),))  # no mode is active
    with capture_attention(model) as seen:
        model[0](*qkv())
    assert len(seen.calls) == 1


def test_gradients_are_the_same_and_a_checkpointed_block_is_seen_once() -> None:
    model = Caller()
    grads = []
    for look in (False, True):
        query, key, value = (tensor.requires_grad_() for tensor in qkv())
        if look:
            with capture_attention(model) as seen:
                loss = checkpoint(model, query, key, value, use_reentrant=False).square().sum()
                torch.autograd.backward(loss)  # runs the block again; this run must not be captured
            assert len(seen.calls) == 1
            assert not seen.results[0].requires_grad
        else:
            model(query, key, value).square().sum().backward()
        grads.append(query.grad)
    assert torch.equal(grads[0], grads[1])


def test_autocast_keeps_the_weights_in_full_precision() -> None:
    query, key, value = qkv()
    model = Caller()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain = model(query, key, value)
        with capture_attention(model, lambda call: call.weights @ call.weights) as seen:
            output = model(query, key, value)
    assert torch.equal(output, plain)
    weights = explicit(query, key)
    assert_close(seen.results[0], weights @ weights)


def test_captures_inside_each_other_both_see() -> None:
    model = nn.MultiheadAttention(16, HEADS, batch_first=True).eval()
    x = torch.randn(B, N, 16)
    for need_weights in (True, False):
        with capture_attention(model) as outer, capture_attention(model) as inner:
            model(x, x, x, need_weights=need_weights)
        assert_close(inner.results[0], outer.results[0].double())


def test_threads_do_not_see_each_other() -> None:
    model, inputs = Caller(), [qkv(seed=seed) for seed in range(4)]
    seen: dict[int, list[Tensor]] = {}
    start = threading.Barrier(len(inputs))

    def look(number: int) -> None:
        start.wait()
        for _ in range(20):
            if number == 0:
                model(*inputs[number])  # one thread does not capture
                continue
            with capture_attention(model) as captured:
                model(*inputs[number])
            seen.setdefault(number, []).extend(captured.results)

    threads = [threading.Thread(target=look, args=(number,)) for number in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == [1, 2, 3]
    for number, results in seen.items():
        assert len(results) == 20
        for weights in results:
            assert_close(weights, explicit(*inputs[number][:2]))


def test_a_compiled_model_runs_as_it_was_written_and_is_compiled_again_afterwards() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.TransformerEncoderLayer(16, HEADS, 32, batch_first=True)).eval()
    x = torch.randn(B, N, 16)
    with torch.no_grad():
        plain = model(x)
        compiled = torch.compile(model, backend="eager")
        compiled(x)
        with capture_attention(compiled) as seen:
            output = compiled(x)
        assert seen.layers == ("0.self_attn",)
        torch.testing.assert_close(output, plain)

        traced: list[object] = []

        def backend(graph: torch.fx.GraphModule, example: object) -> torch.fx.GraphModule:
            traced.append(graph)
            return graph

        again = torch.compile(nn.Sequential(nn.Linear(16, 16)), backend=backend)
        again(x)
        assert traced  # compilation works again


def test_a_capture_inside_a_compiled_function_is_refused() -> None:
    model = Caller()

    @torch.compile(backend="eager")
    def inside(*args: Tensor) -> Tensor:
        with capture_attention(model):
            return model(*args)

    with pytest.raises(InputError, match="inside a compiled function"):
        inside(*qkv())


@pytest.mark.filterwarnings("ignore")
def test_torchscript_cannot_be_looked_into() -> None:
    model = torch.jit.trace(nn.MultiheadAttention(16, HEADS).eval(), (torch.randn(N, B, 16),) * 3)
    with torch.no_grad(), pytest.raises(InputError, match="TorchScript"), capture_attention(model):
        model(*(torch.randn(N, B, 16),) * 3)
