"""Folding for inference: the logits stay the same, and nothing is left to fold."""

from __future__ import annotations

import pytest
import torch
from timm.layers import StdConv2d, StdConv2dSame
from torch import nn

from vitrim.models.factory import create_model
from vitrim.models.folding import fold_for_inference
from vitrim.models.network import Network

FORMS = {
    "TransUNet": {"name": "transunet"},
    "TransUNet with the release's stem": {"name": "transunet", "stem": "release"},
    "TransUNet without blocks": {"name": "transunet", "depth": 0},
    "2D UNETR": {"name": "unetr2d"},
    "2D CATS": {"name": "cats2d"},
    "2D CATS on a DenseNet": {"name": "cats2d", "backbone": "densenet121", "depth": 3},
}


def trained(name: str, **settings: object) -> Network:
    """Return a network whose batch norm statistics come from images, as after training, so they are not 0 and 1."""
    torch.manual_seed(0)
    network = create_model(name, num_classes=3, image_size=64, size="micro", width=0.25, **settings).train()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)
    with torch.no_grad():
        for _ in range(3):
            network(3 * torch.randn(4, 1, 64, 64) + 1)
    return network.eval()


@pytest.mark.parametrize("form", FORMS)
def test_a_folded_network_gives_the_same_logits(form: str) -> None:
    network = trained(**FORMS[form])  # type: ignore[arg-type]
    images = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        expected = network(images)
        found = fold_for_inference(network)(images)
        again = network(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert torch.equal(again, expected), "the network itself was changed"


@pytest.mark.parametrize("form", [form for form in FORMS if "DenseNet" not in form])
def test_nothing_is_left_to_fold(form: str) -> None:
    folded = fold_for_inference(trained(**FORMS[form]))  # type: ignore[arg-type]
    left = [name for name, m in folded.named_modules() if isinstance(m, (nn.BatchNorm2d, StdConv2d, StdConv2dSame))]
    assert left == []


def test_of_a_densenet_the_norms_after_convolutions_are_folded() -> None:
    network = trained(**FORMS["2D CATS on a DenseNet"])  # type: ignore[arg-type]

    def norms(model: nn.Module) -> int:
        return sum(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())

    assert norms(fold_for_inference(network)) < norms(network) * 0.6
