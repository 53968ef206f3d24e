"""Networks work with any image size, number of channels and classes, ViT size and CNN.

They also work compiled, in bf16, in channels-last format and exported.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from vitrim.errors import InputError
from vitrim.models.checkpoint import load_model, save_model
from vitrim.models.factory import create_model
from vitrim.models.network import Network
from vitrim.models.vit import ViT, ViTSize

NETWORKS = ["transunet", "cats2d", "unetr2d"]
SMALL: dict[str, Any] = {"num_classes": 3, "size": "micro", "width": 0.125, "depth": 2, "backbone": "resnet18"}


def small(name: str, **choices: Any) -> Network:
    torch.manual_seed(0)
    return create_model(name, **{**SMALL, "image_size": (64, 96), **choices})


def check(network: Network, folder: Path) -> None:
    """Check forward, backward, truncation, and saving and loading a checkpoint."""
    channels, (height, width) = network.config.in_chans, network.config.image_size
    images = torch.randn(2, channels, height, width)
    logits = network.train()(images)
    assert logits.shape == (2, network.config.num_classes, height, width)
    logits.square().mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
    network.eval()
    with torch.no_grad():
        expected = network(images)
        assert torch.equal(network.truncated(network.depth)(images), expected)
        assert network.truncated(1)(images).shape == expected.shape
        save_model(network, folder / "saved")
        assert torch.equal(load_model(folder / "saved")(images), expected)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "choices",
    [
        {"image_size": 64, "in_chans": 1, "num_classes": 2, "size": "tiny"},
        {"image_size": (64, 512), "in_chans": 2, "num_classes": 105},
        {"image_size": (160, 80), "in_chans": 4, "num_classes": 9, "size": "small"},
        {"image_size": 96, "in_chans": 3, "num_classes": 14, "size": "base"},
        pytest.param({"image_size": 512, "in_chans": 1, "num_classes": 4, "depth": 1}, marks=pytest.mark.slow),
    ],
)
def test_every_size_works(name: str, choices: dict[str, Any], tmp_path: Path) -> None:
    check(small(name, **choices), tmp_path)


@pytest.mark.parametrize(
    "backbone", ["densenet121", "efficientnet_b0", "regnety_002", "resnetblur50", "dla34", "mobilenetv3_small_050"]
)
def test_every_cnn_with_the_four_scales_works_in_cats(backbone: str, tmp_path: Path) -> None:
    check(small("cats2d", backbone=backbone), tmp_path)


def test_what_was_built_before_does_not_move_the_random_weights() -> None:
    first, second = small("cats2d", image_size=80), small("cats2d", image_size=80)
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    ("backbone", "complaint"),
    [
        ("convnext_atto", "has no features at 1/2"),
        ("vit_tiny_patch16_224", "has no features at 1/2, 1/4, 1/8"),
        ("inception_v4", "gives features of sizes"),
        ("coatnet_0_rw_224", "does not work with images"),
        ("resnet5000", "is not a timm model"),
    ],
)
def test_a_cnn_without_them_is_refused(backbone: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        small("cats2d", backbone=backbone)


@pytest.mark.parametrize("size", [200, (224, 100), 0])
def test_image_sizes_that_are_no_multiples_of_16_are_refused(size: int) -> None:
    with pytest.raises(InputError, match="image_size"):
        small("unetr2d", image_size=size)


@pytest.mark.parametrize("size", [64, (160, 80)])
def test_the_releases_stem_works_at_every_size(size: Any, tmp_path: Path) -> None:
    check(small("transunet", stem="release", image_size=size), tmp_path)


@pytest.mark.parametrize("stem", ["timm", "release"])
def test_a_narrow_stem_is_not_normalised_away(stem: str) -> None:
    """A group of one channel would be instance norm, which removes the strength of a channel."""
    network = small("transunet", stem=stem)
    norms = [
        m for name, m in network.stem.named_modules() if isinstance(m, torch.nn.GroupNorm) and "downsample" not in name
    ]
    assert all(norm.num_channels >= 2 * norm.num_groups for norm in norms)


def test_at_full_width_the_stem_is_timms() -> None:
    network = small("transunet", width=1.0, size="tiny", image_size=64)
    theirs = timm.create_model("vit_base_r50_s16_224", depth=1, img_size=64, num_classes=0).patch_embed.backbone
    theirs.load_state_dict(network.stem.cnn.state_dict())  # type: ignore[union-attr]
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, other in zip(
            network.stem(images),
            theirs.forward_intermediates(images, intermediates_only=True),
            strict=True,  # type: ignore[operator]
        ):
            assert torch.equal(ours, other)


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Network:
    return small(request.param).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_compiled_it_is_one_graph_with_the_same_logits(network: Network, images: torch.Tensor) -> None:
    torch.compiler.reset()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), network(images), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_compiled_to_machine_code_it_trains_alike(network: Network, images: torch.Tensor) -> None:
    torch.compiler.reset()
    twin = copy.deepcopy(network)
    compiled = torch.compile(twin, fullgraph=True)
    for model in (compiled, network):
        model(images).square().mean().backward()
    ours, theirs = (
        torch.cat([p.grad.flatten() for p in m.parameters() if p.grad is not None]) for m in (twin, network)
    )
    assert (ours - theirs).norm() < 1e-3 * theirs.norm()


@torch.no_grad()
def test_channels_last_gives_the_same_logits(network: Network, images: torch.Tensor) -> None:
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    found = last(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(found, network(images), rtol=1e-3, atol=1e-4)


def test_bf16_autocast_trains(network: Network, images: torch.Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        logits = network.train()(images)
    assert logits.dtype == torch.bfloat16
    logits.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


@torch.no_grad()
def test_exported_it_takes_any_batch_and_gives_the_same_logits(network: Network, images: torch.Tensor) -> None:
    program = torch.export.export(network, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for batch in (images, images[:1]):
        torch.testing.assert_close(program.module()(batch), network(batch), rtol=1e-4, atol=1e-4)


def test_a_few_steps_from_scratch_reduce_the_loss(network: Network, images: torch.Tensor) -> None:
    """The initial weights can be trained: the network learns to separate bright and dark pixels."""
    labels = (images.mean(1) > 0).long()
    optimizer = torch.optim.AdamW(network.train().parameters(), lr=2e-3)
    losses = []
    for _ in range(15):
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] < 3
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(("dim", "heads", "deviation"), [(128, 4, 0.049), (768, 12, 0.02)])
def test_linear_layers_start_with_the_same_variance_at_every_width(dim: int, heads: int, deviation: float) -> None:
    torch.manual_seed(0)
    vit = ViT(1, 16, (2, 2), ViTSize(dim, heads), depth=1)
    for layer in (layer for layer in vit.blocks.modules() if isinstance(layer, torch.nn.Linear)):
        assert float(layer.weight.std()) == pytest.approx(deviation, rel=0.02)
        assert not layer.bias.any()
