"""Attention without exchange is what it says, in every kind of model, and the model does not change."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vitrim as package
from tests.attention.test_capture import HEADS, Caller, N, Writer, explicit, qkv
from tests.attention.test_libraries import MODELS, images, tensors
from vitrim.attention.capture import capture_attention
from vitrim.attention.exchange import without_exchange
from vitrim.attention.replay import Intervention, run_interventions
from vitrim.errors import InputError

TOKENS = torch.eye(N, dtype=torch.float64)


def changed(model: nn.Module, form: Any, *args: Any, maps: Any = None, **kwargs: Any) -> Tensor:
    with without_exchange(model, [1], form, maps=maps):
        return model(*args, **kwargs)


@pytest.mark.parametrize("model", [Caller(), Writer(lambda logits: logits.softmax(-1))], ids=["fused", "written"])
def test_identity_equals_an_explicit_identity(model: nn.Module) -> None:
    query, key, value = qkv(dtype=torch.float64)
    torch.testing.assert_close(changed(model, "identity", query, key, value), TOKENS @ value, atol=1e-5, rtol=0)


@pytest.mark.parametrize("model", [Caller(), Writer(lambda logits: logits.softmax(-1))], ids=["fused", "written"])
def test_uniform_and_constant_equal_explicit_ones(model: nn.Module) -> None:
    query, key, value = qkv(dtype=torch.float64)
    mean = value.mean(dim=-2, keepdim=True).expand_as(value)
    torch.testing.assert_close(changed(model, "uniform", query, key, value), mean)
    weights = explicit(query, key).mean(dim=0)
    torch.testing.assert_close(changed(model, "constant", query, key, value), weights @ value)
    given = torch.rand(HEADS, N, N, dtype=torch.float64).softmax(-1)
    torch.testing.assert_close(changed(model, "constant", query, key, value, maps={1: given}), given @ value)


def test_grouped_keys_and_halves_are_taken() -> None:
    query, key, value = qkv(heads=2, dtype=torch.bfloat16)
    found = changed(Caller(), "identity", query, key, value, enable_gqa=True)
    assert torch.equal(found, value.repeat_interleave(HEADS // 2, dim=1))
    found = changed(Caller(), "uniform", query, key, value, enable_gqa=True)
    assert found.dtype == torch.bfloat16
    expected = value.float().mean(-2, keepdim=True).repeat_interleave(HEADS // 2, dim=1).expand(query.shape)
    torch.testing.assert_close(found.float(), expected, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("kind", ["bool", "added", "causal"])
def test_masked_keys_get_no_weight(kind: str) -> None:
    query, key, value = qkv(dtype=torch.float64)
    seen = torch.ones(N, N, dtype=torch.bool).tril() if kind == "causal" else torch.arange(N) < N - 2
    seen = seen.expand(N, N)
    options: dict[str, Any] = {
        "bool": {"attn_mask": seen},
        "added": {"attn_mask": torch.zeros(N, N, dtype=torch.float64).masked_fill(~seen, -math.inf)},
        "causal": {"is_causal": True},
    }[kind]
    uniform = seen.double() / seen.sum(-1, keepdim=True)
    torch.testing.assert_close(changed(Caller(), "uniform", query, key, value, **options), uniform @ value)
    model = Caller()
    with capture_attention(model) as own:
        model(query, key, value, **options)
    mean = own.results[0].mean(dim=0)
    torch.testing.assert_close(changed(Caller(), "constant", query, key, value, **options), mean @ value)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_that_is_captured_can_be_changed_and_does_not_notice(name: str) -> None:
    """Without exchange in all blocks, the attention that is left is outside the blocks; afterwards all is as before."""
    make, _, blocks = MODELS[name]
    torch.manual_seed(0)
    model = make().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)  # some heads are zero at the start
    with torch.no_grad():
        plain = tensors(model(images()))
        hooks = [len(module._forward_hooks) for module in model.modules()]
        with without_exchange(model, range(1, blocks + 1)):
            off = tensors(model(images()))
        with without_exchange(model, []):
            same = tensors(model(images()))
        again = tensors(model(images()))
    assert any(not torch.equal(a, b) for a, b in zip(plain, off, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain, same, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    with pytest.raises(InputError, match=rf"block {blocks + 1}\b"):
        run_without(model, blocks + 1, images())


def run_without(model: nn.Module, block: int, *args: Any, **options: Any) -> None:
    with torch.no_grad(), without_exchange(model, [block], **options):
        model(*args)


def test_without_exchange_a_patch_changes_no_other_token() -> None:
    network = package.create_model("unetr2d", num_classes=2, size="micro", width=0.125, image_size=64, depth=3).eval()
    other = images().clone()
    other[:, :, :16, :16] += 1
    with torch.no_grad(), without_exchange(network, [1, 2, 3]):
        (one, _), (two, _) = network.vit(images(), ()), network.vit(other, ())
    apart = (one - two).abs().amax(dim=1)
    assert apart[:, 0, 0].min() > 0
    assert apart.flatten(1)[:, 1:].max() == 0


def test_multi_head_attention_of_torch_is_changed_also_where_it_returns_weights() -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(16, 4, batch_first=True).eval()
    x = torch.randn(2, 5, 16)
    value = F.linear(x, layer.in_proj_weight[32:], layer.in_proj_bias[32:])
    expected = layer.out_proj(value)
    for options in ({}, {"need_weights": False}):
        with torch.no_grad(), without_exchange(layer, [1]):
            found, weights = layer(x, x, x, **options)
        torch.testing.assert_close(found, expected)
    assert weights is None


class Windowed(nn.Module):
    """Attention within four windows of each image."""

    num_heads = HEADS

    def forward(self, x: Tensor) -> Tensor:
        parts = x.unflatten(1, (4, -1)).flatten(0, 1)[:, None].expand(-1, HEADS, -1, -1)
        return F.scaled_dot_product_attention(parts, parts, parts)


def test_attention_that_cannot_be_switched_off_is_refused_with_the_reason() -> None:
    query, key, value = qkv()
    with pytest.raises(InputError, match="cross-attention"):
        run_without(Caller(), 1, query, key[:, :, :4], value[:, :, :4], layers="*")
    with pytest.raises(InputError, match="windowed"):
        run_without(Windowed(), 1, torch.randn(2, 16, 8))
    with pytest.raises(InputError, match="no attention was seen"):
        run_without(nn.Linear(2, 2), 1, torch.randn(2, 2))
    with pytest.raises(InputError, match="counted from 1"):
        run_without(Caller(), 0, query, key, value)
    with pytest.raises(InputError, match="did you mean 'identity'"):
        run_without(Caller(), 1, query, key, value, form="idenity")
    with pytest.raises(InputError, match="no map for block 1"):
        run_without(Caller(), 1, query, key, value, form="constant", maps={})
    with pytest.raises(InputError, match=r"must be \(heads, N, N\)"):
        run_without(Caller(), 1, query, key, value, form="constant", maps={1: torch.ones(2, 2)})


FORMS = [Intervention(tuple(range(k + 1, 4)), form) for k in range(3) for form in ("identity", "uniform", "constant")]


@pytest.mark.parametrize("name", ["transunet", "cats2d", "unetr2d", *MODELS])
def test_shared_work_gives_the_same_bits(name: str) -> None:
    torch.manual_seed(0)
    if name in MODELS:
        model = MODELS[name][0]().eval()
    else:
        model = package.create_model(name, num_classes=2, size="micro", width=0.125, image_size=64, depth=3).eval()
    batch = images()
    forms = [Intervention((3,)), *FORMS]
    found = [tensors(output) for output in run_interventions(model, lambda: model(batch), batch, forms)]
    with torch.no_grad():
        for each, output in zip([Intervention(), *forms], found, strict=True):
            with without_exchange(model, each.blocks, each.form):
                expected = tensors(model(batch))
            assert all(torch.equal(a, b) for a, b in zip(output, expected, strict=True))


def test_what_lies_before_the_first_changed_block_is_computed_once() -> None:
    network = package.create_model("transunet", num_classes=2, size="micro", width=0.125, image_size=32, depth=4).eval()
    batch = torch.randn(1, 3, 32, 32)
    counted = [torch.utils.flop_counter.FlopCounterMode(display=False) for _ in range(4)]
    for counter, forms in zip(counted, ([], [(4,)], [(4,), (3, 4)], [(1, 2, 3, 4)]), strict=True):
        with counter:
            list(run_interventions(network, lambda: network(batch), batch, [Intervention(blocks) for blocks in forms]))
    whole, last, two, all_blocks = (counter.get_total_flops() for counter in counted)
    stem, decoder = parts_of(network, batch)
    assert last - whole < 0.25 * (whole - stem - decoder) + decoder
    assert last < two < whole + 2 * (whole - stem)
    assert all_blocks < 2 * whole - stem


def parts_of(network: nn.Module, batch: Tensor) -> tuple[int, int]:
    """Floating-point operations of the stem, and of what follows the transformer."""
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        network(batch)
    counts = counter.get_flop_counts()
    total = {name: sum(ops.values()) for name, ops in counts.items()}
    name = type(network).__name__
    return total[f"{name}.stem"], total["Global"] - total[f"{name}.stem"] - total[f"{name}.vit"]
