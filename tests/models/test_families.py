"""Families that are no plain stack of blocks are refused with their own reason; those with another form are adapted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from monai.networks.nets import SwinUNETR, UNet
from monai.networks.nets import ViT as MonaiViT
from torch import nn

from vitrim.attention.exchange import without_exchange
from vitrim.attention.profiling import profile_attention
from vitrim.compression.block_selection import choose_blocks, without
from vitrim.config.schema import TrainConfig
from vitrim.errors import InputError
from vitrim.models.adapt import adapt
from vitrim.models.checkpoint import load_model, save_model
from vitrim.models.describe import count_parameters
from vitrim.training.distillation import recover

SMALL = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 64}


def transformers() -> Any:
    return pytest.importorskip("transformers")


def sam_of_timm() -> nn.Module:
    return timm.create_model("samvit_base_patch16", img_size=64, embed_dim=48, depth=3, global_attn_indexes=(2,))


def sam_of_hugging_face() -> nn.Module:
    sam = transformers().models.sam.modeling_sam
    sizes = {**SMALL, "image_size": 128, "mlp_dim": 32, "output_channels": 8, "window_size": 4}
    return sam.SamVisionEncoder(transformers().SamVisionConfig(**sizes, global_attn_indexes=[1, 3]))


def vitmae() -> nn.Module:
    return transformers().ViTMAEModel(transformers().ViTMAEConfig(**SMALL, intermediate_size=64, mask_ratio=0.75))


def vitmae_without_masking() -> nn.Module:
    """It still shuffles the patches."""
    return transformers().ViTMAEModel(transformers().ViTMAEConfig(**SMALL, intermediate_size=64, mask_ratio=0.0))


def hiera_of_hugging_face() -> nn.Module:
    return transformers().HieraModel(transformers().HieraConfig(embed_dim=16))


def unet() -> nn.Module:
    return UNet(2, 1, 3, channels=(4, 8, 16), strides=(2, 2))


def swin_unetr() -> nn.Module:
    return SwinUNETR(1, 2, feature_size=12, spatial_dims=3)


def volo() -> nn.Module:
    dims = {"embed_dims": (24, 48, 48, 48), "num_heads": (2, 2, 2, 2), "layers": (1, 1, 2, 1)}
    first = {"downsamples": (True, False, False, False), "outlook_attention": (True, False, False, False)}
    return timm.models.volo.VOLO(**dims, **first, post_layers=("ca", "ca"))


def hiera() -> nn.Module:
    return timm.create_model("hiera_tiny_224", embed_dim=16)


def of_timm(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        return timm.create_model(name)

    make.__name__ = name
    return make


NO_ATTENTION = "no attention was found in it, so it has no transformer blocks"
HIERARCHY = "such as Swin or SegFormer has no single token grid"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (sam_of_timm, r"2 of the 3 blocks in blocks attend only inside windows.*SAM"),
        (sam_of_hugging_face, r"2 of the 4 blocks in layers attend only inside windows.*SAM"),
        (vitmae, r"draws random numbers \(torch\.rand\) in eval mode"),
        (vitmae_without_masking, r"draws random numbers \(torch\.rand\) in eval mode"),
        (volo, rf"beside post_network .* another kind \(network\.0 returns.*{HIERARCHY}"),
        (hiera_of_hugging_face, rf"another kind \(encoder\.stages changes the shape.*{HIERARCHY}"),
        (hiera, HIERARCHY),
        (swin_unetr, HIERARCHY),
        (unet, NO_ATTENTION),
        (of_timm("resnet18"), NO_ATTENTION),
        (of_timm("convnext_atto"), NO_ATTENTION),
        (of_timm("cspresnet50"), NO_ATTENTION),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_it_is_refused_with_its_own_reason(make: Callable[[], nn.Module], reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        adapt(make())
    assert len(str(caught.value).splitlines()) == 1
    if reason != HIERARCHY and HIERARCHY not in reason:
        assert "Swin" not in str(caught.value)


class OfOneSize(nn.Module):
    """Its positions fit images of 64 x 64, which it says nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 16, 16)
        self.positions = nn.Parameter(torch.zeros(1, 16, 16))
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(16, 2, 16, batch_first=True) for _ in range(2))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(images).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


def test_a_size_that_the_model_does_not_state_is_asked_for() -> None:
    with pytest.raises(
        InputError, match=r"shape \(3, 224, 224\).*give two .*example=torch\.zeros\(2, channels, height"
    ):
        adapt(OfOneSize())
    assert adapt(OfOneSize(), example=torch.zeros(2, 3, 64, 64)).token_grid == (4, 4)
    volumes = MonaiViT(1, (32, 32, 48), 16, 16, 16, 2, 2)
    with pytest.raises(InputError, match=r"give two .* example=torch\.zeros\(2, channels, depth, height, width\)"):
        adapt(volumes)
    assert adapt(volumes, example=torch.zeros(2, 1, 32, 32, 48)).token_grid == (2, 2, 3)


def test_images_of_another_size_than_the_model_was_adapted_for_are_refused() -> None:
    """It runs at any size, but its token grid is that of one."""
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=64, depth=2, embed_dim=24, num_heads=2, dynamic_img_size=True
    )
    images = torch.randn(2, 3, 32, 48)
    with pytest.raises(InputError, match=r"of 64×64, these are of 32×48.* example=torch\.zeros\(2, 3, 32, 48\)"):
        profile_attention(adapt(model), images)
    profile = profile_attention(adapt(model, example=images), images, measures=["globality"])
    assert profile.grid == (2, 3)


def test_a_list_that_holds_one_whole_transformer_is_no_hierarchy() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoders = nn.ModuleList([OfOneSize()])

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.encoders[0](images)

    assert adapt(Holder(), example=torch.zeros(2, 3, 64, 64)).found.path == "encoders.0.blocks"


def nested(kind: str = "ViT") -> nn.Module:
    """vit-pytorch's model: each block is a list of attention and MLP, which the model calls with its own residuals."""
    package = pytest.importorskip("vit_pytorch")
    torch.manual_seed(0)
    return getattr(package, kind)(image_size=32, patch_size=16, num_classes=3, dim=16, depth=4, heads=2, mlp_dim=16)


EXAMPLE = torch.zeros(2, 3, 32, 32)


@pytest.mark.parametrize("kind", ["ViT", "SimpleViT"])
def test_nested_lists_lose_whole_blocks(kind: str, tmp_path: Path) -> None:
    model = nested(kind).eval()
    adapted = adapt(model, example=EXAMPLE)
    assert (adapted.depth, adapted.token_grid, adapted.found.path) == (4, (2, 2), "transformer.layers")
    images = torch.randn(2, 3, 32, 32)
    kept = adapted.keep_blocks([1, 3, 4]).truncated(2)
    assert (kept.kept, kept.full_depth, len(kept.blocks)) == ((1, 3), 4, 2)
    by_hand = nested(kind).eval()
    layers = by_hand.transformer.layers
    by_hand.transformer.layers = nn.ModuleList([layers[0], layers[2]])
    with torch.no_grad():
        assert torch.equal(adapted(images), model(images))
        assert torch.equal(kept(images), by_hand(images))
        assert torch.equal(without(adapted.truncated(2), 2)(images), adapted.truncated(1)(images))
    assert count_parameters(adapted) - count_parameters(adapted.truncated(3)) == sum(
        parameter.numel() for parameter in adapted.blocks[3].parameters()
    )
    save_model(kept, tmp_path / "kept")
    again = load_model(tmp_path / "kept", into=nested(kind))
    with torch.no_grad():
        assert torch.equal(again(images), kept(images))


def test_the_attention_of_nested_lists_is_measured_and_switched_off() -> None:
    adapted = adapt(nested(), example=EXAMPLE).truncated(2)
    images = torch.randn(3, 3, 32, 32)
    profile = profile_attention(adapted, images, measures=["globality"])
    assert (profile.blocks, profile.grid, profile.prefix_tokens) == (2, (2, 2), 1)
    with torch.no_grad():
        plain = adapted.eval()(images)
        with without_exchange(adapted, [2]):
            changed = adapted(images)
    assert not torch.allclose(plain, changed)


def test_what_needs_the_tokens_after_a_block_is_refused_for_nested_lists() -> None:
    adapted = adapt(nested(), example=EXAMPLE)
    cases = [("a", torch.randn(2, 3, 32, 32), None)]
    with pytest.raises(InputError, match="calls the parts of its blocks one by one"):
        choose_blocks(adapted, 2, "influence", images=cases)
    with pytest.raises(InputError, match="calls the parts of its blocks one by one"):
        recover(adapted.truncated(1), [], TrainConfig(steps=1), teacher=adapted)


def test_a_network_of_volumes_is_not_recovered_on_slices() -> None:
    volumes = adapt(MonaiViT(1, (32, 32, 32), 16, 16, 16, 2, 2), example=torch.zeros(2, 1, 32, 32, 32))
    with pytest.raises(InputError, match="takes volumes, and recovery trains on slices"):
        recover(volumes.truncated(1), [], TrainConfig(steps=1))
