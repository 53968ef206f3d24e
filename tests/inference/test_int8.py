"""Prediction in 8-bit integers: logits are close to the float32 logits, and errors are not hidden."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.models.test_folding import FORMS, trained
from tests.support import needs_x86
from vitrim.errors import InputError
from vitrim.evaluation.segment import predict_slices
from vitrim.inference import int8
from vitrim.inference.int8 import Int8Conv2d, Int8Linear, Int8UpConvs, largest_exact_weight, quantised, to_int8
from vitrim.models.folding import fold_for_inference
from vitrim.models.layers import UpConvs


def spread(values: torch.Tensor) -> float:
    """Return the root mean square."""
    return float(values.square().mean().sqrt())


@needs_x86
@pytest.mark.parametrize("form", ["TransUNet with the release's stem", "2D UNETR", "2D CATS"])
def test_the_logits_are_near_the_networks_own(form: str) -> None:
    network = fold_for_inference(trained(**FORMS[form]))  # type: ignore[arg-type]
    images = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        expected = network(images)
        rounded = to_int8(network)
        found = rounded(images)
        again = network(images)
    assert 0 < spread(found - expected) < 0.1 * float(expected.std())
    assert torch.equal(again, expected), "the network itself was changed"
    left = [name for name, m in rounded.vit.named_modules() if type(m) is nn.Linear]
    wide = [
        name
        for name, m in rounded.named_modules()
        if type(m) is nn.Conv2d and name.split(".")[0] not in network.float32_parts and min(m.weight.shape[:2]) >= 32
    ]
    assert left == wide == []
    assert any(isinstance(m, Int8Conv2d) for m in rounded.modules())
    assert any(isinstance(m, Int8UpConvs) for m in rounded.modules()) == form.startswith("TransUNet")


@needs_x86
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("shift", [0.0, 4.0])
def test_a_convolution_of_whole_steps_is_exact(kernel: int, shift: float) -> None:
    """Weights and values that lie exactly on steps have no rounding error, also at the padded edge."""
    torch.manual_seed(0)
    layer, most = nn.Conv2d(32, 48, kernel, padding=kernel // 2), largest_exact_weight()
    layer.weight.data = torch.randint(-most, most + 1, layer.weight.shape) / most
    layer.weight.data[:, 0, 0, 0] = 1.0  # largest weight of each output channel, so that the scale is 1 / most
    top = 254 if kernel == 1 and shift == 0 else 255  # in this case zero is step 1
    values = torch.randint(0, top + 1, (2, 32, 9, 7)).float() / 16 - shift
    values[0, 0, 0, :2] = torch.tensor([0.0, top / 16]) - shift
    with torch.inference_mode():
        torch.testing.assert_close(Int8Conv2d(layer)(values), layer(values), rtol=1e-4, atol=1e-3)


@needs_x86
@pytest.mark.parametrize("skips", [24, 0])
def test_a_stage_of_the_decoder_is_that_of_the_joined_float_map(skips: int) -> None:
    torch.manual_seed(0)
    stage = UpConvs(40 + skips, 32).eval()
    stage[0][0] = Int8Conv2d(stage[0][0])
    below = torch.randn(3, 40, 5, 6)
    skip = 3 * torch.randn(3, skips, 10, 12) if skips else None
    with torch.inference_mode():
        torch.testing.assert_close(Int8UpConvs(stage)(below, skip), stage(below, skip), rtol=0, atol=0.03)


@needs_x86
def test_a_linear_layer_is_near_its_own_in_any_shape() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(64, 40)
    for shape in ((5, 64), (2, 9, 64)):
        values = torch.randn(shape)
        with torch.inference_mode():
            found, expected = Int8Linear(layer)(values), layer(values)
        assert found.shape == expected.shape
        assert spread(found - expected) < 0.02 * spread(expected)


@given(low=st.floats(-1e3, 1e3), width=st.floats(0, 1e3), channels_last=st.booleans(), least=st.integers(0, 1))
@settings(max_examples=50, deadline=None)
def test_a_value_is_half_a_step_from_its_own_at_most(low: float, width: float, channels_last: bool, least: int) -> None:
    values = low + width * torch.rand(2, 3, 4, 5)
    if channels_last:
        values = values.contiguous(memory_format=torch.channels_last)
    steps, scale, zero = quantised(values, least)
    assert steps.stride() == values.stride()
    found = scale * (steps.float() - zero)
    assert float((found - values).abs().max()) <= 0.51 * scale + 1e-4 * abs(low)
    assert least <= zero <= 255  # padding uses this step, so zero stays zero


@needs_x86
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_not_hidden(wrong: float) -> None:
    network = to_int8(fold_for_inference(trained("transunet")))
    images = np.random.default_rng(0).normal(size=(2, 1, 64, 64)).astype(np.float32)
    images[1, 0, 3, 3] = wrong
    with pytest.raises(InputError, match="not finite"):
        predict_slices(network, images)


@needs_x86
def test_torch_has_the_products_that_this_rests_on() -> None:
    """They are private to torch: if this fails alone, torch changed them, and `vitrim.inference.int8` must follow."""
    assert largest_exact_weight() in int8.WEIGHT_STEPS


@needs_x86
def test_without_dot_products_of_8_bits_weights_have_7_bits_and_sums_are_exact() -> None:
    """oneDNN is told to use AVX2 alone: 8-bit weights are then wrong, and the whole network is near its own anyway."""
    script = (
        "import torch\n"
        "from tests.models.test_folding import FORMS, trained\n"
        "from vitrim.models.folding import fold_for_inference\n"
        "from vitrim.inference.int8 import largest_exact_weight, to_int8\n"
        "assert largest_exact_weight() == 63\n"
        "network, images = fold_for_inference(trained(**FORMS['2D CATS'])), torch.randn(2, 1, 64, 64)\n"
        "with torch.inference_mode():\n"
        "    expected, found = network(images), to_int8(network)(images)\n"
        "assert 0 < (found - expected).square().mean().sqrt() < 0.1 * expected.std()\n"
    )
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    ("product", "word"),
    [
        (lambda *_: (_ for _ in ()).throw(TypeError("unexpected argument")), "in another way"),
        (lambda *_: torch.zeros(4, 32), "not exact"),
    ],
)
def test_without_exact_products_it_is_refused(monkeypatch: pytest.MonkeyPatch, product: Any, word: str) -> None:
    monkeypatch.setattr(int8, "_product", product)
    monkeypatch.setattr(int8, "_packed", lambda weight: weight)
    largest_exact_weight.cache_clear()
    with pytest.raises(InputError, match=word):
        to_int8(trained("transunet"))
    largest_exact_weight.cache_clear()
