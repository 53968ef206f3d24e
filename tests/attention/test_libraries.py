"""The attention of unchanged models of other libraries is captured, and it is the attention that they compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vitrim.attention.capture import capture_attention
from vitrim.attention.profiling import profile_attention
from vitrim.errors import InputError

SIZE = 64


def images(size: int = SIZE) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def timm_vit(name: str = "vit_tiny_patch16_224", *, fused: bool = True, **options: Any) -> nn.Module:
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, img_size=SIZE, depth=3, embed_dim=48, num_heads=3, num_classes=2, **options)
    for block in model.blocks:
        block.attn.fused_attn = fused
    return model


def monai_vit(**options: Any) -> nn.Module:
    nets = pytest.importorskip("monai.networks.nets")
    sizes = {"hidden_size": 48, "mlp_dim": 96, "num_heads": 3, "spatial_dims": 2}
    return nets.ViT(3, (SIZE, SIZE), (16, 16), num_layers=3, **sizes, **options)


def monai_unetr(**options: Any) -> nn.Module:
    nets = pytest.importorskip("monai.networks.nets")
    sizes = {"hidden_size": 48, "mlp_dim": 96, "num_heads": 3, "spatial_dims": 2}
    return nets.UNETR(3, 2, img_size=SIZE, feature_size=4, **sizes, **options)


def hugging_face(kind: str, attention: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    sizes: dict[str, Any] = {
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "intermediate_size": 96,
    }
    sizes |= {"image_size": SIZE, "attn_implementation": attention}
    if kind == "vit":
        return transformers.ViTModel(transformers.ViTConfig(**sizes))
    if kind == "registers":
        config = transformers.Dinov2WithRegistersConfig(patch_size=16, mlp_ratio=2, **sizes)
        return transformers.Dinov2WithRegistersModel(config)
    sizes |= {"num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3]}
    sizes |= {"neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8, "is_hybrid": False}
    return transformers.DPTForSemanticSegmentation(transformers.DPTConfig(**sizes))


def torchvision_vit() -> nn.Module:
    models = pytest.importorskip("torchvision.models")
    return models.VisionTransformer(SIZE, 16, 3, 3, 48, 96, num_classes=2)


def smp_dpt() -> nn.Module:
    smp = pytest.importorskip("segmentation_models_pytorch")
    return smp.DPT("tu-vit_tiny_patch16_224", encoder_depth=4, encoder_weights=None, dynamic_img_size=True)


MODELS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {  # model, tokens before the patches, blocks
    "timm, fused": (timm_vit, 1, 3),
    "timm, written out": (lambda: timm_vit(fused=False), 1, 3),
    "timm, registers and no class token": (lambda: timm_vit("vit_base_patch16_reg4_gap_256"), 4, 3),
    "timm, distilled": (lambda: timm_vit("deit_tiny_distilled_patch16_224"), 2, 3),
    "timm, pooled by attention": (lambda: timm_vit("vit_base_patch16_siglip_224"), 0, 3),
    "timm, relative positions": (lambda: timm_vit("vit_relpos_small_patch16_224"), 0, 3),
    "timm, talking heads and class attention": (lambda: timm_vit("cait_xxs24_224", fused=False), 0, 3),
    "monai ViT": (monai_vit, 0, 3),
    "monai ViT, class token and kept maps": (lambda: monai_vit(classification=True, save_attn=True), 1, 3),
    "monai UNETR": (monai_unetr, 0, 12),
    "hugging face ViT, sdpa": (lambda: hugging_face("vit", "sdpa"), 1, 3),
    "hugging face ViT, eager": (lambda: hugging_face("vit", "eager"), 1, 3),
    "hugging face DINOv2 with registers, sdpa": (lambda: hugging_face("registers", "sdpa"), 5, 3),
    "hugging face DPT, sdpa": (lambda: hugging_face("dpt", "sdpa"), 1, 4),
    "hugging face DPT, eager": (lambda: hugging_face("dpt", "eager"), 1, 4),
    "torchvision ViT": (torchvision_vit, 1, 3),
    "segmentation_models_pytorch DPT": (smp_dpt, 1, 12),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_block_is_seen_and_the_model_does_not_notice(name: str) -> None:
    torch.manual_seed(0)
    make, prefix, blocks = MODELS[name]
    model = make().train()
    next(model.modules()).training = False  # an unusual mode that must be restored
    modes = [module.training for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    profile = profile_attention(model, images(), measures=["globality", "entropy"])
    assert (profile.grid, profile.prefix_tokens, profile.blocks) == ((4, 4), prefix, blocks)
    assert set(profile.heads) == {3}
    assert 0.5 < profile.of("globality").min() < profile.of("globality").max() < 1.5  # untrained: near uniform
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())

    model.eval()
    with torch.no_grad():
        plain = tensors(model(images()))
        with capture_attention(model) as captured:
            looked = tensors(model(images()))
    for ours, theirs in zip(looked, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    for weights in captured.results:
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))


def tensors(output: Any) -> list[Tensor]:
    """All tensors in the output of a model."""
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if hasattr(output, "values") else output or ()
    return [tensor for part in parts if part is not None for tensor in tensors(part)]


def test_fused_and_written_out_attention_of_timm_are_the_same() -> None:
    model = timm_vit().eval()
    found = []
    for fused in (True, False):
        for block in model.blocks:
            block.attn.fused_attn = fused
        with torch.no_grad(), capture_attention(model) as captured:
            model(images())
        found.append(captured.results)
    for fused_weights, written_weights in zip(*found, strict=True):
        torch.testing.assert_close(fused_weights, written_weights, rtol=0, atol=1e-5)


def test_weights_are_those_that_monai_keeps() -> None:
    model = monai_vit(save_attn=True).eval()
    with torch.no_grad(), capture_attention(model) as captured:
        model(images())
    for block, weights in zip(model.blocks, captured.results, strict=True):
        torch.testing.assert_close(weights, block.attn.att_mat, rtol=0, atol=1e-6)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_weights_are_those_that_hugging_face_returns(attention: str) -> None:
    model = hugging_face("vit", "eager").eval()
    with torch.no_grad():
        theirs = model(images(), output_attentions=True).attentions
        model.set_attn_implementation(attention)
        with capture_attention(model) as captured:
            model(images())
    assert len(theirs) == 3
    for ours, expected in zip(captured.results, theirs, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


def test_a_model_in_bf16_is_profiled_in_full_precision() -> None:
    torch.manual_seed(0)
    model = timm_vit()
    full = profile_attention(model, images())
    half = profile_attention(model.to(torch.bfloat16), images())
    assert abs(half.of("globality") - full.of("globality")).max() < 0.02


def test_a_compiled_model_is_profiled() -> None:
    model = timm_vit()
    plain = profile_attention(model, images(), measures=["globality"])
    compiled = profile_attention(torch.compile(model, backend="eager"), images(), measures=["globality"])
    assert compiled.layers == plain.layers
    assert (compiled.values == plain.values).all()


def refused(model: nn.Module, size: int = SIZE) -> str:
    with pytest.raises(InputError) as caught:
        profile_attention(model, images(size))
    return str(caught.value)


def test_windowed_attention_is_refused_with_a_reason() -> None:
    models = pytest.importorskip("torchvision.models")
    swin = models.SwinTransformer([4, 4], 24, [2, 2], [3, 6], [4, 4])
    assert "windowed attention" in refused(swin)
    timm = pytest.importorskip("timm")
    assert "windowed attention" in refused(timm.create_model("maxvit_nano_rw_256", num_classes=2), 256)


def test_hierarchical_attention_is_refused_with_a_reason() -> None:
    timm = pytest.importorskip("timm")
    assert "reduced tokens" in refused(timm.create_model("pvt_v2_b0", num_classes=2))
    levit = timm.create_model("levit_128s", img_size=SIZE, num_classes=2)
    assert "attention" in refused(levit, SIZE)


def test_a_model_without_attention_is_refused_with_a_reason() -> None:
    timm = pytest.importorskip("timm")
    assert "no attention was captured" in refused(timm.create_model("resnet10t", num_classes=2))


def test_attention_by_a_kernel_that_cannot_be_seen_is_refused() -> None:
    """One of three blocks uses a kernel that cannot be captured. The other two blocks must not count as the model."""
    model = timm_vit()

    class Hidden(nn.Module):
        def forward(self, x: Tensor, **options: Any) -> Tensor:
            return x

    model.blocks[1].attn = Hidden()
    assert "0 attention calls were measured in block 2 of VisionTransformer" in refused(model)
