"""vitrim's ViT gives the same results as timm's and MONAI's with the same weights."""

from __future__ import annotations

import timm
import torch
from monai.networks.nets import UNETR
from monai.networks.nets import ViT as MonaiViT
from torch import nn

from vitrim.models.adapt import adapt
from vitrim.models.describe import count_parameters
from vitrim.models.factory import create_model
from vitrim.models.vit import SIZES, ViT

DEPTH = 3


def our_vit() -> ViT:
    torch.manual_seed(0)
    vit = ViT(3, 16, (4, 6), SIZES["tiny"], DEPTH).eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return vit


@torch.no_grad()
def test_the_trunk_equals_timms() -> None:
    ours = our_vit()
    theirs = timm.create_model(
        "vit_tiny_patch16_224", img_size=(64, 96), depth=DEPTH, num_classes=0, class_token=False, global_pool=""
    ).eval()
    state = {name.replace("patch_embed.", "patch_embed.proj."): tensor for name, tensor in ours.state_dict().items()}
    theirs.load_state_dict(state)
    images = torch.randn(2, 3, 64, 96)
    expected = theirs.forward_features(images).transpose(1, 2).unflatten(2, (4, 6))
    torch.testing.assert_close(ours(images, ())[0], expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_trunk_equals_monais() -> None:
    ours = our_vit()
    size = SIZES["tiny"]
    theirs = MonaiViT(3, (64, 96), 16, size.dim, 4 * size.dim, DEPTH, size.heads, spatial_dims=2, qkv_bias=True).eval()
    for norm in theirs.modules():
        if isinstance(norm, nn.LayerNorm):
            norm.eps = 1e-6
    renamed = {
        "patch_embed.": "patch_embedding.patch_embeddings.",
        "pos_embed": "patch_embedding.position_embeddings",
        "attn.proj.": "attn.out_proj.",
        "mlp.fc1.": "mlp.linear1.",
        "mlp.fc2.": "mlp.linear2.",
    }
    state = {}
    for name, tensor in ours.state_dict().items():
        for here, there in renamed.items():
            name = name.replace(here, there)
        state[name] = tensor
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert unexpected == []
    assert all("cross_attn" in name for name in missing)

    images = torch.randn(2, 3, 64, 96)
    last, hidden = theirs(images)
    found, maps = ours(images, taps=(1, 2))
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), last, rtol=1e-5, atol=1e-5)
    for number, tokens in maps.items():
        torch.testing.assert_close(tokens.flatten(2).transpose(1, 2), hidden[number - 1], rtol=1e-5, atol=1e-5)


def test_how_our_2d_unetr_differs_from_monais_in_parameters() -> None:
    """MONAI's default decoder is narrow (16 to 128 channels), also in 2D. The ViT is nearly the same.

    MONAI's query, key and value layers have no bias. vitrim's have one, like timm's pretrained ones (12 × 3 × 768).
    """
    with torch.device("meta"):
        ours = create_model("unetr2d", num_classes=9)
        theirs = adapt(UNETR(3, 9, img_size=224, spatial_dims=2))
    vit = sum(parameter.numel() for parameter in ours.vit.parameters())  # type: ignore[union-attr]
    monai = sum(p.numel() for name, p in theirs.named_parameters() if ".vit." in name and "cross_attn" not in name)
    assert count_parameters(ours) == 111_816_649
    assert vit - monai == 12 * 3 * 768
    assert count_parameters(theirs) - monai < 0.1 * (count_parameters(ours) - vit)
