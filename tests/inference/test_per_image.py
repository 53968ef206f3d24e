"""Image by image: logits equal those of the batch, and only parts with larger maps than weights are changed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.models.test_folding import FORMS, trained
from tests.support import needs_x86
from vitrim.inference.int8 import Int8Conv2d
from vitrim.inference.per_image import ByImage, large_maps_by_image
from vitrim.models.folding import fold_for_inference


@pytest.mark.parametrize("form", FORMS)
def test_the_logits_are_those_of_the_batch(form: str) -> None:
    network = fold_for_inference(trained(**FORMS[form]))  # type: ignore[arg-type]
    apart = large_maps_by_image(network)
    assert not any(isinstance(part, ByImage) for part in network.modules()), "the network itself was changed"
    for count in (1, 3):
        images = torch.randn(count, 1, 64, 64)
        with torch.inference_mode():
            expected, found = network(images), apart(images)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_what_is_taken_apart_sees_one_image_and_is_what_has_larger_maps_than_weights() -> None:
    network = large_maps_by_image(fold_for_inference(trained("transunet", stem="release")))
    parts = {name: part for name, part in network.named_modules() if isinstance(part, ByImage)}
    assert "decoder.3" in parts
    assert "decoder.0" not in parts
    seen: list[tuple[int, bool]] = []
    for part in parts.values():
        weights = sum(p.numel() for p in part.parameters())
        part.part.register_forward_hook(
            lambda _, inputs, output, weights=weights: seen.append((len(output), output[0].numel() > weights))
        )
    with torch.inference_mode():
        network(torch.randn(3, 1, 64, 64))
    assert seen == [(1, True)] * 3 * len(parts)


@needs_x86
def test_in_8_bit_integers_such_a_part_does_not_depend_on_the_other_images() -> None:
    torch.manual_seed(0)
    part = ByImage(Int8Conv2d(nn.Conv2d(32, 40, 3, padding=1)))
    maps = torch.randn(3, 32, 16, 16)
    maps[1] *= 100
    with torch.inference_mode():
        assert torch.equal(part(maps)[:1], part(maps[:1]))
        assert not torch.equal(part.part(maps)[:1], part.part(maps[:1]))
