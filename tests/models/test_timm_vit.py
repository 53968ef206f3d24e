"""A network with a ViT of timm gives its decoder what timm gives, for each family, and does all that others do."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

import vitrim as package
from tests.support import needs_x86
from vitrim.commands.export import _write
from vitrim.config.network_schema import NetworkConfig
from vitrim.errors import ConfigurationError, InputError
from vitrim.inference.int8 import Int8Linear, to_int8
from vitrim.models.describe import count_parameters
from vitrim.models.factory import NETWORKS, create_model
from vitrim.models.folding import fold_for_inference
from vitrim.models.network import Network, skeleton
from vitrim.models.timm_vit import NoBlock, TimmViT

SIZE = (32, 48)
FAMILIES = {
    "vit_tiny_patch16_224": "plain, also augreg, DINO and MAE",
    "deit_tiny_distilled_patch16_224": "two prefix tokens",
    "deit3_small_patch16_224": "LayerScale, positions without the class token",
    "vit_xsmall_patch16_clip_224": "a norm before the blocks",
    "vit_small_patch14_dinov2": "patches of 14",
    "vit_small_patch14_reg4_dinov2": "registers",
    "vit_small_patch16_dinov3": "rotary positions",
    "vit_small_plus_patch16_dinov3": "SwiGLU",
    "eva02_tiny_patch14_224": "bias of query and value only",
    "vit_small_patch16_rope_mixed_224": "rotary positions of each block",
    "vit_relpos_small_patch16_224": "relative positions",
    "cait_xxs24_224": "24 blocks",
}

DIFFERENT = (
    "deit_tiny_distilled_patch16_224",
    "vit_small_patch14_reg4_dinov2",
    "vit_tiny_patch16_dinov3_qkvb",
    "vit_small_patch16_rope_mixed_224",
)
"""What holds for a ViT in a network is tried with these."""


def build(kind: str, vit: str, **choices: Any) -> Network:
    """Make a narrow network whose parameters are all different from their initial values."""
    torch.manual_seed(0)
    settings = {"num_classes": 2, "width": 0.125, "image_size": SIZE, "backbone": "resnet18", **choices}
    network = create_model(kind, vit=vit, **settings).eval()
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.add_(0.02 * torch.randn_like(tensor))
    return network


def timms_own(network: Network, **settings: Any) -> nn.Module:
    """Make timm's whole model with the weights of the network's ViT."""
    assert isinstance(network.vit, TimmViT)
    model = timm.create_model(str(network.config.vit), num_classes=0, **settings)
    unexpected = model.load_state_dict(network.vit.timm.state_dict(), strict=False).unexpected_keys
    assert not unexpected
    return model.eval()


@pytest.fixture(scope="module", params=DIFFERENT)
def network(request: pytest.FixtureRequest) -> Network:
    return build("unetr2d", request.param, depth=4)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("vit", FAMILIES)
@torch.no_grad()
def test_tokens_are_those_of_timm(vit: str, images: torch.Tensor) -> None:
    network = build("unetr2d", vit, depth=4)
    model = timms_own(network, img_size=SIZE, patch_size=16, depth=4)
    last, maps = network.vit(images, (1, 2, 4))  # type: ignore[misc]
    plain, normed = (
        model.forward_intermediates(images, indices=[0, 1, 3], intermediates_only=True, norm=norm)  # type: ignore[operator]
        for norm in (False, True)
    )
    for block, expected in zip((1, 2, 4), plain, strict=True):
        assert expected.shape == (2, model.embed_dim, 2, 3)
        torch.testing.assert_close(maps[block], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(last, normed[-1], rtol=1e-5, atol=1e-5)
    assert torch.equal(last, plain[-1]) == isinstance(model.norm, nn.Identity)


@torch.no_grad()
def test_it_is_truncated_saved_and_read_again(network: Network, images: torch.Tensor, tmp_path: Path) -> None:
    short = package.truncate(network, 2)
    _, maps = network.vit(images, (1, 2))  # type: ignore[misc]
    _, kept = short.vit(images, (1, 2))  # type: ignore[misc]
    assert len(short.blocks) == 2
    assert torch.equal(maps[1], kept[1])
    assert torch.equal(maps[2], kept[2])
    package.save_model(short, tmp_path / "short")
    again = package.load_model(tmp_path / "short")
    assert again.config == short.config
    assert torch.equal(again(images), short(images))


@torch.no_grad()
def test_blocks_that_are_kept_do_what_they_did_alone(network: Network, images: torch.Tensor) -> None:
    """Without the blocks between them. Rotary positions of a block go with it."""
    without = copy.deepcopy(network.vit)
    assert isinstance(without, TimmViT)
    for place in range(len(without.blocks)):
        if place + 1 not in (2, 4):
            without.timm.blocks[place] = NoBlock()
    chosen = network.keep_blocks((2, 4))
    assert chosen.depth == 2
    assert torch.equal(chosen.vit(images)[0], without(images)[0])  # type: ignore[misc]


@torch.no_grad()
def test_its_attention_is_measured_over_the_patches(network: Network, images: torch.Tensor) -> None:
    profile = package.profile_attention(network.truncated(3), images)
    assert set(profile.table()["block"]) == {1, 2, 3}
    assert profile.table()["value"].notna().all()
    with package.capture_attention(network) as captured:
        network(images)
    tokens = 6 + network.vit.timm.num_prefix_tokens  # type: ignore[union-attr]
    assert {each.shape[2:] for each in captured.results} == {(tokens, tokens)}
    assert len(captured.results) == network.depth


@torch.no_grad()
def test_its_exchange_is_switched_off(network: Network, images: torch.Tensor) -> None:
    logits = network(images)
    for form in ("identity", "constant", "uniform"):
        with package.without_exchange(network, range(1, network.depth + 1), form):  # type: ignore[arg-type]
            assert not torch.equal(network(images), logits)
    assert torch.equal(network(images), logits)


@torch.no_grad()
def test_tokens_can_leave_early(network: Network, images: torch.Tensor) -> None:
    assert isinstance(network.vit, TimmViT)
    early = copy.deepcopy(network.vit)
    early.leave_after = 2
    last, maps = early(images, (1, 3))
    _, plain = network.vit(images, (1, 2))
    assert torch.equal(maps[1], plain[1])
    assert torch.equal(maps[3], plain[2])
    assert torch.equal(last, network.truncated(2).vit(images)[0])  # type: ignore[misc]


def test_every_parameter_is_trained_and_counted(network: Network, images: torch.Tensor) -> None:
    trained = copy.deepcopy(network).train()
    trained(images).square().mean().backward()
    learning = {name: p for name, p in trained.named_parameters() if p.requires_grad}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learning.values())
    assert count_parameters(network) == sum(p.numel() for p in learning.values())


@needs_x86
@pytest.mark.parametrize("vit", ["deit_tiny_distilled_patch16_224", "eva02_tiny_patch14_224"])
@torch.inference_mode()
def test_in_int8_the_logits_are_near(vit: str, images: torch.Tensor) -> None:
    short = fold_for_inference(build("unetr2d", vit, depth=3))
    rounded = to_int8(short)
    difference = rounded(images) - short(images)
    assert 0 < difference.std() < 0.3 * short(images).std()
    assert sum(isinstance(layer, Int8Linear) for layer in rounded.modules()) >= 9


@pytest.mark.parametrize("vit", ["deit_tiny_distilled_patch16_224", "vit_tiny_patch16_dinov3_qkvb"])
@torch.no_grad()
def test_the_onnx_file_gives_the_same_logits(vit: str, images: torch.Tensor, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    network = build("unetr2d", vit, depth=2)
    _write(fold_for_inference(network), tmp_path / "network.onnx", {})
    found = runtime.InferenceSession(tmp_path / "network.onnx").run(None, {"images": images.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(found), network(images), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("vit", ["vit_small_patch14_reg4_dinov2", "vit_small_patch16_rope_mixed_224"])
@torch.no_grad()
def test_in_transunet_a_projection_of_features_takes_the_place_of_patches(vit: str, images: torch.Tensor) -> None:
    network = build("transunet", vit, depth=3)
    features = network.stem(images)[-1]  # type: ignore[operator]
    assert isinstance(network.vit, TimmViT)
    assert network.vit.timm.patch_embed.proj.weight.shape == (384, features.shape[1], 1, 1)
    assert network(images).shape == (2, 2, *SIZE)
    bare = network.truncated(0)
    assert len(bare.blocks) == 0
    assert bare(images).shape == (2, 2, *SIZE)
    assert torch.equal(bare.vit.timm.norm.weight, network.vit.timm.norm.weight)  # type: ignore[union-attr]


@torch.no_grad()
def test_in_cats_it_stands_beside_the_cnn(images: torch.Tensor) -> None:
    network = build("cats2d", "deit_tiny_distilled_patch16_224")
    assert network.taps == (3, 6, 9, 12)
    for depth in (0, 4):
        assert network.truncated(depth)(images).shape == (2, 2, *SIZE)


def test_a_vit_with_24_blocks_has_24(images: torch.Tensor) -> None:
    config = NetworkConfig.model_validate({"name": "unetr2d", "num_classes": 2, "vit": "vit_large_patch16_224"})
    assert (config.depth, config.full_depth, config.taps) == (24, 24, (6, 12, 18, 24))
    state = skeleton(NETWORKS["unetr2d"], config).state_dict()
    assert state["vit.timm.blocks.23.norm1.weight"].shape == (1024,)
    assert state["lifts.16.weight"].shape == (1024, 512, 2, 2)
    with pytest.raises(ConfigurationError, match="depth 25: vit_large_patch16_224 has 24 blocks"):
        create_model("unetr2d", num_classes=2, vit="vit_large_patch16_224", depth=25)


def test_the_description_names_it() -> None:
    described = str(package.describe(build("unetr2d", "vit_tiny_patch16_224", depth=2)))
    assert "unetr2d (vit_tiny_patch16_224)" in described
    assert "vit.timm.blocks" in described


@pytest.mark.parametrize(
    ("vit", "complaint"),
    [
        ("vit_smal_patch14_dinov2", "not a model of timm .did you mean 'vit_small_patch14_dinov2'"),
        ("vit_base_patch14_dinov2.lvd", "no weights 'lvd' for vit_base_patch14_dinov2; it has .*lvd142m"),
        ("swin_tiny_patch4_window7_224", "hierarchical models such as Swin have several grids"),
        ("pvt_v2_b0", "no list of transformer blocks on one grid"),
        ("resnet50", "CNNs have no patches"),
        ("samvit_base_patch16", "within windows of 14 × 14 patches"),
        ("vit_base_r50_s16_224", "a CNN stands before its blocks"),
        ("xcit_nano_12_p16_224", "over channels, not over patches"),
        (5, "vit: Input should be a valid string"),
    ],
)
def test_what_cannot_stand_in_a_network_is_refused_with_the_reason(vit: Any, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        create_model("unetr2d", num_classes=2, vit=vit)
    assert "\n" not in str(caught.value)


def test_a_size_beside_it_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"size small and vit vit_small_patch14_dinov2 .* are two ViTs"):
        create_model("unetr2d", num_classes=2, vit="vit_small_patch14_dinov2", size="small")


def test_images_that_are_not_whole_patches_are_refused() -> None:
    with pytest.raises(InputError, match="image size 98 is not a multiple of 16"):
        create_model("unetr2d", num_classes=2, vit="vit_small_patch14_dinov2", image_size=98)
