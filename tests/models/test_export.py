"""Every network gives the same logits after export with torch.export, at different depths."""

from __future__ import annotations

import pytest
import torch

from vitrim.models.factory import create_model


@pytest.mark.parametrize("name", ["transunet", "cats2d", "unetr2d"])
@pytest.mark.parametrize("depth", [3, 1])
def test_the_exported_program_gives_the_same_logits(name: str, depth: int) -> None:
    torch.manual_seed(0)
    network = create_model(name, num_classes=3, image_size=64, size="micro", width=0.25, depth=depth).eval()
    images = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        program = torch.export.export(network, (images,))
        torch.testing.assert_close(program.module()(images), network(images))
