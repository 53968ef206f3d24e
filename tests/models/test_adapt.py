"""Unchanged models of other libraries get vitrim's interface. Hugging Face and smp are optional here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from monai.networks.nets import UNETR
from monai.networks.nets import ViT as MonaiViT
from torch import nn

from vitrim.errors import InputError
from vitrim.models.adapt import Adapted, adapt
from vitrim.models.checkpoint import load_model, save_model
from vitrim.models.describe import count_macs, count_parameters, describe
from vitrim.models.dry_run import _tensors
from vitrim.models.factory import create_model

SMALL = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64}
MONAI = {"hidden_size": 32, "mlp_dim": 64, "num_heads": 2, "spatial_dims": 2}


def timm_vit() -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", img_size=64, depth=4, embed_dim=48, num_classes=3)


def timm_registers() -> nn.Module:
    return timm.create_model("vit_small_patch14_reg4_dinov2", img_size=56, depth=4, embed_dim=48, num_heads=3)


def timm_hybrid() -> nn.Module:
    return timm.create_model("vit_base_r50_s16_224", img_size=64, depth=4, embed_dim=32, num_heads=2, num_classes=3)


def monai_unetr() -> nn.Module:
    return UNETR(1, 4, img_size=64, feature_size=4, **MONAI)


def monai_unetr_of_volumes() -> nn.Module:
    return UNETR(1, 4, img_size=(32, 32, 48), feature_size=4, **{**MONAI, "spatial_dims": 3})


def monai_vit() -> nn.Module:
    return MonaiViT(1, 64, 16, num_layers=4, **MONAI)


def torchvision_vit() -> nn.Module:
    return torchvision.models.VisionTransformer(64, 16, 4, 2, 32, 64, num_classes=3)


def hugging_face_vit() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    return transformers.ViTModel(transformers.ViTConfig(image_size=64, **SMALL))


def hugging_face_dpt() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    neck = {"backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8}
    config = transformers.DPTConfig(image_size=64, is_hybrid=False, **neck, **SMALL)
    return transformers.DPTForSemanticSegmentation(config)


def smp_dpt() -> nn.Module:
    smp = pytest.importorskip("segmentation_models_pytorch")
    narrow = {"decoder_intermediate_channels": (8, 8, 8, 8), "decoder_fusion_channels": 8}
    return smp.DPT("tu-vit_tiny_patch16_224", encoder_weights=None, classes=3, dynamic_img_size=True, **narrow)


class WithPath(nn.Module):
    """A model with unusual names and the sequence axis first. It states no image size."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 32, 16, 16)
        self.trunk = nn.ModuleDict({"stack": nn.ModuleList(nn.TransformerEncoderLayer(32, 2, 64) for _ in range(4))})

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(images).flatten(2).permute(2, 0, 1)  # (N, B, C)
        for block in self.trunk["stack"]:  # type: ignore[union-attr]
            tokens = block(src=tokens)
        return tokens


Make = Callable[[], nn.Module]
MODELS: dict[Make, tuple[tuple[int, ...], tuple[int, ...], int]] = {
    timm_vit: ((3, 64, 64), (4, 4), 4),
    timm_registers: ((3, 56, 56), (4, 4), 4),
    timm_hybrid: ((3, 64, 64), (4, 4), 4),
    monai_unetr: ((1, 64, 64), (4, 4), 12),
    monai_unetr_of_volumes: ((1, 32, 32, 48), (2, 2, 3), 12),
    monai_vit: ((1, 64, 64), (4, 4), 4),
    torchvision_vit: ((3, 64, 64), (4, 4), 4),
    hugging_face_vit: ((3, 64, 64), (4, 4), 4),
    hugging_face_dpt: ((3, 64, 64), (4, 4), 4),
    smp_dpt: ((3, 224, 224), (14, 14), 12),
}
every_model = pytest.mark.parametrize(
    ("make", "shape", "grid", "depth"),
    [(make, *facts) for make, facts in MODELS.items()],
    ids=lambda v: getattr(v, "__name__", ""),
)


def outputs(model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    return list(_tensors(model(images)))


def total(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@every_model
def test_the_contract_holds(
    make: Make, shape: tuple[int, ...], grid: tuple[int, ...], depth: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = make().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images = torch.randn(2, *shape)
    with torch.no_grad():
        expected = outputs(model, images)

    adapted = adapt(model)
    assert isinstance(adapted, Adapted)
    assert (adapted.depth, len(adapted.blocks), adapted.token_grid) == (depth, depth, grid)
    with torch.no_grad():
        for same in (adapted, adapted.truncated(depth)):
            assert all(torch.equal(a, b) for a, b in zip(outputs(same, images), expected, strict=True))

    short = adapted.truncated(2).train()
    saved = sum(total(block) for block in list(adapted.blocks)[2:])
    assert total(adapted) - total(short) == saved
    assert len(short.blocks) == 2
    found = outputs(short, images)
    assert [tensor.shape for tensor in found] == [tensor.shape for tensor in expected]
    torch.stack([tensor.float().square().mean() for tensor in found]).sum().backward()
    assert all(p.grad is not None for name, p in short.blocks.named_parameters() if "cross_attn" not in name)

    save_model(short, tmp_path / "short")
    loaded = load_model(tmp_path / "short", into=make())
    with torch.no_grad():
        for a, b in zip(outputs(loaded, images), outputs(short.eval(), images), strict=True):
            assert torch.equal(a, b)

    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_parameters_that_a_library_never_uses_do_not_count() -> None:
    """MONAI's blocks have a norm for cross-attention (weight and bias) that UNETR does not use."""
    adapted = adapt(monai_unetr())
    unused = sum(p.numel() for name, p in adapted.named_parameters() if "norm_cross_attn" in name)
    assert unused == 12 * 2 * 32
    assert count_parameters(adapted) == total(adapted) - unused


def test_truncation_saves_what_the_blocks_cost() -> None:
    adapted = adapt(timm_vit())
    block = total(adapted.blocks[0])
    assert count_parameters(adapted) - count_parameters(adapted.truncated(1)) == 3 * block
    assert count_macs(adapted) > count_macs(adapted.truncated(1)) > count_macs(adapted.truncated(0))


def test_the_description_names_the_blocks_and_adds_up() -> None:
    adapted = adapt(monai_unetr()).truncated(3)
    description = describe(adapted)
    assert sum(part.parameters for part in description.parts) == count_parameters(adapted)
    assert sum(part.multiply_adds for part in description.parts) == count_macs(adapted)
    assert "3 of 12, at vit.blocks" in str(description)


def test_any_module_is_adapted_when_the_path_of_its_blocks_is_given() -> None:
    model = WithPath().eval()
    images = torch.randn(2, 3, 64, 96)
    adapted = adapt(model, blocks="trunk.stack", example=images)
    assert (adapted.depth, adapted.token_grid) == (4, (4, 6))
    with torch.no_grad():
        one = adapted.truncated(1)(images)
        assert torch.equal(one, model.trunk["stack"][0](model.embed(images).flatten(2).permute(2, 0, 1)))  # type: ignore[index]


def test_blocks_that_return_tuples_are_replaced_by_ones_that_do() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.Linear(8, 8)

        def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, None]:
            return self.attention(hidden_states), None

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.ModuleList(Block() for _ in range(3))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            tokens = images.flatten(2)[:, :, :8]
            for block in self.layer:
                tokens, _ = block(hidden_states=tokens)
            return tokens

    adapted = adapt(Model(), example=torch.zeros(2, 16, 4, 4), token_grid=(4, 4))
    assert adapted.truncated(1)(torch.zeros(2, 16, 4, 4)).shape == (2, 16, 8)


def test_hooks_of_a_removed_block_still_see_the_tokens() -> None:
    model = timm_vit()
    seen: list[torch.Size] = []
    model.blocks[3].register_forward_hook(lambda block, inputs, output: seen.append(output.shape))  # type: ignore[index]
    adapt(model).truncated(1)(torch.zeros(1, 3, 64, 64))
    assert seen[-1] == (1, 17, 48)


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "pvt_v2_b0"])
def test_a_model_without_a_single_token_grid_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(InputError, match="such as Swin or SegFormer has no single token grid"):
        adapt(timm.create_model(name))


def test_hugging_faces_hierarchies_are_refused() -> None:
    transformers = pytest.importorskip("transformers")
    swin = transformers.SwinConfig(image_size=64, embed_dim=12, depths=[2, 2], num_heads=[2, 2], window_size=4)
    former = transformers.SegformerConfig(hidden_sizes=[8, 16, 16, 16], num_attention_heads=[1, 2, 2, 2])
    for model in (transformers.SwinModel(swin), transformers.SegformerModel(former)):
        with pytest.raises(InputError, match=r"blocks on several token grids: .*no single token grid"):
            adapt(model)


def test_what_cannot_be_adapted_is_said() -> None:
    with pytest.raises(InputError, match="it has no module 'layers'"):
        adapt(timm_vit(), blocks="layers")
    with pytest.raises(InputError, match="norm is a LayerNorm, not a list of blocks"):
        adapt(timm_vit(), blocks="norm")
    with pytest.raises(InputError, match=r"does not run on example images of shape \(3, 65, 64\)"):
        adapt(timm_vit(), example=torch.zeros(2, 3, 65, 64))
    with pytest.raises(InputError, match="the example must be two images"):
        adapt(timm_vit(), example=torch.zeros(3, 64, 64))
    with pytest.raises(InputError, match="cannot truncate VisionTransformer to 5 blocks: it has 4, so choose 0 to 4"):
        adapt(timm_vit()).truncated(5)
    with pytest.raises(InputError, match="cannot describe a VisionTransformer: use describe"):
        describe(timm_vit())
    with pytest.raises(InputError, match="cannot save a VisionTransformer"):
        save_model(timm_vit(), "nowhere")


def test_blocks_that_share_their_weights_are_refused() -> None:
    class Looping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(2)])

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            tokens = images.flatten(2)
            for _ in range(3):
                tokens = self.layers[0](tokens)
            return self.layers[1](tokens)

    with pytest.raises(InputError, match="not called once each"):
        adapt(Looping(), blocks="layers", example=torch.zeros(2, 16, 2, 4))


def test_our_own_networks_have_the_contract_already() -> None:
    network = create_model("unetr2d", num_classes=2, depth=1, size="micro", width=0.125, image_size=64)
    assert adapt(network) is network
    again = adapt(timm_vit())
    assert adapt(again) is again


def test_a_checkpoint_of_an_adapted_model_needs_that_model(tmp_path: Path) -> None:
    save_model(adapt(timm_vit()).truncated(1), tmp_path / "saved")
    with pytest.raises(InputError, match="weights of a VisionTransformer of another library"):
        load_model(tmp_path / "saved")
    with pytest.raises(InputError, match="had 4 blocks at blocks"):
        load_model(
            tmp_path / "saved", into=timm.create_model("vit_tiny_patch16_224", img_size=64, depth=3, embed_dim=48)
        )
