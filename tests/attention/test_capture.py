"""Captured weights are those that the attention used, for all kinds of arguments. The model does not change."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrim.attention.capture import capture_attention
from vitrim.errors import InputError

B, HEADS, N, SIZE = 2, 4, 9, 8


class Caller(nn.Module):
    """Calls scaled_dot_product_attention with the given arguments."""

    num_heads = HEADS

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return F.scaled_dot_product_attention(*args, **kwargs)


class Writer(nn.Module):
    """Computes the softmax itself, with one of torch's softmax functions."""

    def __init__(self, softmax: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.softmax = softmax

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return self.softmax(query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])) @ value


def qkv(heads: int = HEADS, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (2 * torch.randn(B, HEADS, N, SIZE, generator=generator) for _ in range(3))
    return query.to(dtype), key[:, :heads].to(dtype), value[:, :heads].to(dtype)


def explicit(query: Tensor, key: Tensor, bias: Tensor | float = 0.0, scale: float | None = None) -> Tensor:
    """softmax(QKᵀ/√d + bias) in float64."""
    logits = query.double() @ key.double().transpose(-2, -1) * (scale or query.shape[-1] ** -0.5) + bias
    return logits.softmax(dim=-1)


def captured(model: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
    """Capture the weights of the model's only call. Check that the output is the same as without capture."""
    torch.manual_seed(5)
    plain = model(*args, **kwargs)
    torch.manual_seed(5)
    with capture_attention(model) as seen:
        output = model(*args, **kwargs)
    assert torch.equal(output, plain)
    (weights,) = seen.results
    return weights


def assert_close(weights: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(weights.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_weights_are_the_softmax_in_float64_of_what_went_in(dtype: torch.dtype) -> None:
    query, key, value = qkv(dtype=dtype)
    weights = captured(Caller(), query, key, value)
    assert weights.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert_close(weights, explicit(query, key))


def test_a_boolean_mask_says_what_takes_part() -> None:
    query, key, value = qkv()
    mask = torch.rand(N, N, generator=torch.Generator().manual_seed(1)) > 0.4
    mask |= torch.eye(N, dtype=torch.bool)
    assert_close(
        captured(Caller(), query, key, value, attn_mask=mask), explicit(query, key, torch.where(mask, 0, -math.inf))
    )
    padding = mask[:1].expand(B, 1, 1, N)
    assert_close(
        captured(Caller(), query, key, value, padding), explicit(query, key, torch.where(padding, 0, -math.inf))
    )


def test_a_float_mask_is_added() -> None:
    query, key, value = qkv()
    bias = torch.randn(B, 1, N, N, generator=torch.Generator().manual_seed(1))
    assert_close(captured(Caller(), query, key, value, attn_mask=bias), explicit(query, key, bias.double()))


def test_a_query_without_a_key_attends_to_nothing() -> None:
    query, key, value = qkv()
    mask = torch.ones(N, N, dtype=torch.bool)
    mask[3] = False
    weights = captured(Caller(), query, key, value, attn_mask=mask)
    assert weights[:, :, 3].abs().max() == 0
    assert not weights.isnan().any()


def test_causal_attention_does_not_look_ahead() -> None:
    query, key, value = qkv()
    bias = torch.full((N, N), -math.inf, dtype=torch.float64).triu(1)
    assert_close(captured(Caller(), query, key, value, is_causal=True), explicit(query, key, bias))


def test_a_scale_of_its_own_is_used() -> None:
    query, key, value = qkv()
    assert_close(captured(Caller(), query, key, value, scale=0.7), explicit(query, key, scale=0.7))


@pytest.mark.parametrize("groups", [1, 2])
def test_grouped_keys_serve_several_heads(groups: int) -> None:
    query, key, value = qkv(groups)
    weights = captured(Caller(), query, key, value, enable_gqa=True)
    assert_close(weights, explicit(query, key.repeat_interleave(HEADS // groups, dim=1)))


def test_one_key_head_may_serve_all_by_broadcasting() -> None:
    query, key, value = qkv(1)
    assert_close(captured(Caller(), query, key, value), explicit(query, key.expand(-1, HEADS, -1, -1)))


def test_dropout_in_training_does_not_touch_the_weights() -> None:
    query, key, value = qkv()
    assert_close(captured(Caller().train(), query, key, value, dropout_p=0.5), explicit(query, key))


def test_heads_folded_into_the_batch_are_unfolded() -> None:
    query, key, value = (tensor.flatten(0, 1) for tensor in qkv())
    weights = captured(Caller(), query, key, value)
    assert weights.shape == (B, HEADS, N, N)
    assert_close(weights.flatten(0, 1), explicit(query, key))
    bias = torch.randn(B * HEADS, N, N, generator=torch.Generator().manual_seed(1))
    assert_close(captured(Caller(), query, key, value, bias).flatten(0, 1), explicit(query, key, bias.double()))


def test_heads_that_do_not_divide_are_refused() -> None:
    query = torch.randn(B * HEADS + 1, N, SIZE)
    model = Caller()
    with pytest.raises(InputError, match="9 attention maps cannot be divided among 4 heads"), capture_attention(model):
        model(query, query, query)


@pytest.mark.parametrize(
    "softmax",
    [
        lambda x: x.softmax(-1),
        lambda x: x.softmax(dim=3),
        lambda x: torch.softmax(x, dim=-1),
        lambda x: F.softmax(x, dim=-1),
        lambda x: F.softmax(x, -1, dtype=torch.float32).to(x.dtype),
        nn.Softmax(dim=-1),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_softmax_that_is_written_out_is_seen(softmax: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    query, key, value = qkv(dtype=dtype)
    logits = query @ key.transpose(-2, -1) / math.sqrt(SIZE)  # in the precision of the module
    assert_close(captured(Writer(softmax), query, key, value), logits.double().softmax(dim=-1))


def test_a_softmax_module_is_named_after_the_attention_that_it_is_part_of() -> None:
    model = nn.ModuleDict({"attn": Writer(nn.Softmax(dim=-1))})
    with capture_attention(model) as seen:
        model["attn"](*qkv())
    assert seen.layers == ("attn",)


def test_a_softmax_over_classes_is_not_attention() -> None:
    class Segmenter(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = F.scaled_dot_product_attention(x, x, x)
            return x.softmax(dim=1) + x.flatten(2).mean(1).softmax(dim=-1)[:, None, None, :SIZE]

    model = Segmenter()
    with capture_attention(model) as seen:
        model(torch.randn(B, HEADS, N, SIZE))
    assert len(seen.calls) == 1


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_multi_head_attention_of_torch_gives_the_weights_it_returns(
    need_weights: bool, training: bool, batch_first: bool
) -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(16, HEADS, batch_first=batch_first).train(training)
    x = torch.randn(B, N, 16) if batch_first else torch.randn(N, B, 16)
    padding = torch.zeros(B, N, dtype=torch.bool)
    padding[0, -2:] = True
    mask = torch.randn(N, N)
    with torch.no_grad():
        plain, expected = attention(
            x, x, x, key_padding_mask=padding, attn_mask=mask, need_weights=True, average_attn_weights=False
        )
        with capture_attention(attention) as seen:
            output, _ = attention(x, x, x, key_padding_mask=padding, attn_mask=mask, need_weights=need_weights)
    (weights,) = seen.results
    assert_close(weights, expected.double())
    torch.testing.assert_close(output, plain)


@pytest.mark.parametrize("need_weights", [True, False])
def test_dropout_of_multi_head_attention_draws_what_it_would_have_drawn(need_weights: bool) -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(16, HEADS, dropout=0.5, batch_first=True)
    x = torch.randn(B, N, 16)
    _, expected = attention.eval()(x, x, x, need_weights=True, average_attn_weights=False)
    outputs = []
    for look in (False, True):
        torch.manual_seed(7)
        if look:
            with capture_attention(attention) as seen:
                outputs.append(attention(x, x, x, need_weights=need_weights)[0])
        else:
            outputs.append(attention.train()(x, x, x, need_weights=need_weights)[0])
    assert torch.equal(*outputs)
    assert_close(seen.results[0], expected.detach().double())


def test_multi_head_attention_to_other_tokens_is_seen() -> None:
    attention = nn.MultiheadAttention(16, HEADS, batch_first=True)
    queries, keys = torch.randn(B, 3, 16), torch.randn(B, N, 16)
    for need_weights in (True, False):
        with torch.no_grad(), capture_attention(attention) as seen:
            attention(queries, keys, keys, need_weights=need_weights)
        assert seen.results[0].shape == (B, HEADS, 3, N)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_the_fast_path_of_a_transformer_encoder_is_seen() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, HEADS, 32, batch_first=True)
    model = nn.TransformerEncoder(layer, 3).eval()
    x = torch.randn(B, N, 16)
    padding = torch.zeros(B, N, dtype=torch.bool)
    padding[0, -2:] = True
    with torch.no_grad():
        for mask in (None, padding):
            plain = model(
                x, src_key_padding_mask=mask
            )  # one fused kernel per layer; nested tensors if there is padding
            with capture_attention(model) as seen:
                output = model(x, src_key_padding_mask=mask)
            assert torch.equal(model(x, src_key_padding_mask=mask), plain)
            assert seen.layers == ("layers.0.self_attn", "layers.1.self_attn", "layers.2.self_attn")
            kept = slice(0, N if mask is None else N - 2)
            torch.testing.assert_close(output[0, kept], plain[0, kept])
    assert seen.results[0][0, :, :, -2:].abs().max() == 0
