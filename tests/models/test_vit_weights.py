"""Weights of a ViT of timm come from a file in timm's or Hugging Face's names, and must be those of this ViT."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from tests.models.test_pretrained import jittered
from vitrim.errors import WeightsError
from vitrim.models.checkpoint import load_model, save_model
from vitrim.models.factory import create_model
from vitrim.models.hugging_face import timm_names
from vitrim.models.network import Network
from vitrim.models.timm_vit import TimmViT

SMALL: dict[str, Any] = {"num_classes": 2, "width": 0.125, "image_size": (32, 48), "backbone": "resnet18"}
EVA = "eva02_tiny_patch14_224"


def write(model: nn.Module, path: Path) -> Path:
    state = {name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()}
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"model": state}, path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of timm's own models, as they are published: another patch, another image size, a classifier."""
    folder = tmp_path_factory.mktemp("files")
    for name, size in ((EVA, 56), ("vit_tiny_patch16_224", 64), ("deit_tiny_distilled_patch16_224", 64)):
        model = jittered(timm.create_model(name, img_size=size, num_classes=11))
        write(model, folder / f"{name}.safetensors")
    return folder


def vit_of(network: Network) -> TimmViT:
    assert isinstance(network.vit, TimmViT)
    return network.vit


@pytest.mark.parametrize(("kind", "channels"), [("unetr2d", 1), ("unetr2d", 4), ("transunet", 3)])
@torch.no_grad()
def test_a_file_is_read_as_timm_reads_it(files: Path, kind: str, channels: int, tmp_path: Path) -> None:
    file = files / f"{EVA}.safetensors"
    network = create_model(kind, vit=EVA, pretrained=str(file), **SMALL, in_chans=channels, depth=3)
    theirs = timm.create_model(
        EVA,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(file)},
        pretrained_strict=False,
        img_size=(32, 48),
        patch_size=16,
        num_classes=0,
        in_chans=3 if channels == 1 else channels,
    ).state_dict()
    ours = vit_of(network).timm.state_dict()
    assert {"pos_embed", "cls_token", "blocks.2.mlp.fc2.weight"} <= set(ours)
    for name, tensor in ours.items():
        if kind == "transunet" and name.startswith("patch_embed."):
            assert tensor.shape != theirs[name].shape or not tensor.any(), name  # a projection of features
        else:
            assert torch.equal(tensor, theirs[name]), name
    assert network.initialised_from.startswith(f"ViT: file {EVA}.safetensors (sha256 ")
    save_model(network, tmp_path / "saved")
    assert load_model(tmp_path / "saved").initialised_from == network.initialised_from


def test_a_folder_holds_the_vit_and_the_cnn_of_cats(files: Path, tmp_path: Path) -> None:
    vit = files / "deit_tiny_distilled_patch16_224.safetensors"
    (tmp_path / "deit_tiny_distilled_patch16_224.fb_in1k.safetensors").write_bytes(vit.read_bytes())
    write(jittered(timm.create_model("resnet18")), tmp_path / "resnet18.pth")
    settings = {**SMALL, "width": 1.0, "depth": 2}
    network = create_model("cats2d", vit="deit_tiny_distilled_patch16_224", pretrained=str(tmp_path), **settings)
    assert "CNN: file resnet18.pth" in network.initialised_from
    assert vit_of(network).timm.dist_token.abs().sum() > 0


def published(kind: str) -> tuple[str, nn.Module]:
    """A model of Hugging Face with random weights, on images of 32 × 32, and timm's name of it."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    size = {"image_size": 32, "patch_size": 16, "num_hidden_layers": 12, "layer_norm_eps": 1e-6}
    tiny, small = ({"hidden_size": 64 * heads, "num_attention_heads": heads} for heads in (3, 6))
    if kind == "ViT":
        config = transformers.ViTConfig(**size, **tiny, intermediate_size=768)
        return "vit_tiny_patch16_224", transformers.ViTModel(config)
    if kind == "DeiT":
        deit = transformers.DeiTConfig(**size, **tiny, intermediate_size=768)
        return "deit_tiny_distilled_patch16_224", transformers.DeiTModel(deit)
    if kind == "Dinov2":
        return "vit_small_patch14_dinov2", transformers.Dinov2Model(transformers.Dinov2Config(**size, **small))
    config = transformers.Dinov2WithRegistersConfig(**size, **small)
    return "vit_small_patch14_reg4_dinov2", transformers.Dinov2WithRegistersModel(config)


@pytest.mark.parametrize("kind", ["ViT", "DeiT", "Dinov2", "Dinov2WithRegisters"])
@torch.no_grad()
def test_a_model_of_hugging_face_gives_its_own_outputs(kind: str, tmp_path: Path) -> None:
    name, theirs = published(kind)
    jittered(theirs)
    settings = {**SMALL, "image_size": 32}
    network = create_model(
        "unetr2d", vit=name, pretrained=str(write(theirs, tmp_path / "model.safetensors")), **settings
    )
    images = torch.randn(2, 3, 32, 32)
    found, maps = vit_of(network.eval())(images, (1, 6))
    outputs = theirs(images, output_hidden_states=True)
    patches = [found, maps[1], maps[6]]
    for ours, tokens in zip(
        patches, (outputs.last_hidden_state, outputs.hidden_states[1], outputs.hidden_states[6]), strict=True
    ):
        expected = tokens[:, -4:].transpose(1, 2).reshape(2, -1, 2, 2)
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


OLDER = [
    (r"^layers\.", "encoder.layer."),
    (r"attention\.q_proj", "attention.attention.query"),
    (r"attention\.k_proj", "attention.attention.key"),
    (r"attention\.v_proj", "attention.attention.value"),
    (r"attention\.o_proj", "attention.output.dense"),
    (r"mlp\.fc1", "intermediate.dense"),
    (r"mlp\.fc2", "output.dense"),
]
"""Names of the tensors of a ViT in newer and in older releases of transformers, and in published files."""


def test_the_names_of_older_releases_mean_the_same() -> None:
    parts = ("q_proj", "k_proj", "v_proj", "o_proj")
    new = {f"layers.0.attention.{part}.weight": torch.full((2, 2), float(n)) for n, part in enumerate(parts)}
    new |= {
        "layers.0.mlp.fc1.bias": torch.ones(3),
        "layers.0.mlp.fc2.bias": torch.ones(2),
        "layernorm.bias": torch.ones(2),
    }
    new["embeddings.patch_embeddings.projection.weight"] = torch.ones(2, 3, 1, 1)
    old = {}
    for name, tensor in new.items():
        for pattern, replacement in OLDER:
            name = re.sub(pattern, replacement, name)
        old[f"vit.{name}"] = tensor
    old |= {"classifier.weight": torch.ones(1), "vit.pooler.dense.weight": torch.ones(1)}
    found, expected = timm_names(old), timm_names(new)
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert found["blocks.0.attn.qkv.weight"].tolist() == [[0.0] * 2] * 2 + [[1.0] * 2] * 2 + [[2.0] * 2] * 2
    assert {"blocks.0.attn.proj.weight", "blocks.0.mlp.fc1.bias", "norm.bias", "patch_embed.proj.weight"} <= set(found)


def test_the_two_halves_of_swiglu_are_joined_as_they_were() -> None:
    gate, up = torch.zeros(2, 3), torch.ones(2, 3)
    start = {"embeddings.patch_embeddings.projection.weight": torch.ones(3, 3, 1, 1)}
    newer = timm_names(
        {**start, "encoder.layer.0.mlp.gate_proj.weight": gate, "encoder.layer.0.mlp.up_proj.weight": up}
    )
    older = timm_names({**start, "encoder.layer.0.mlp.weights_in.weight": torch.cat([gate, up])})
    assert torch.equal(newer["blocks.0.mlp.fc1.weight"], older["blocks.0.mlp.fc1.weight"])


@pytest.mark.parametrize(
    ("vit", "file", "complaint"),
    [
        (
            "vit_small_patch16_224",
            "vit_tiny_patch16_224",
            "holds tokens 192 wide; those of vit_small_patch16_224 are 384",
        ),
        ("cait_xxs24_224", "vit_tiny_patch16_224", "holds 12 blocks; cait_xxs24_224 has 24"),
        ("vit_tiny_patch16_224", EVA, "weights of another ViT than vit_tiny_patch16_224; tensors missing: .*qkv.bias"),
        (EVA, "vit_tiny_patch16_224", "weights of another ViT than eva02_tiny_patch14_224; tensors missing: .*q_bias"),
        ("vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "another ViT than vit_tiny_patch16_224"),
        ("deit_tiny_distilled_patch16_224", "vit_tiny_patch16_224", "another ViT than deit_tiny_distilled"),
    ],
)
def test_weights_of_another_vit_are_refused(files: Path, vit: str, file: str, complaint: str) -> None:
    with pytest.raises(WeightsError, match=complaint) as caught:
        create_model("unetr2d", vit=vit, pretrained=str(files / f"{file}.safetensors"), **SMALL)
    assert "\n" not in str(caught.value)


def test_layer_scales_that_the_vit_has_not_are_not_dropped(files: Path, tmp_path: Path) -> None:
    """Without them the file would be read, and mean something else."""
    model = timm.create_model("vit_tiny_patch16_224", init_values=1.0, num_classes=0)
    with pytest.raises(WeightsError, match=r"tensors unexpected: blocks\.0\.ls1\.gamma"):
        create_model("unetr2d", vit="vit_tiny_patch16_224", pretrained=str(write(model, tmp_path / "a.pth")), **SMALL)


@pytest.mark.parametrize(
    ("vit", "pretrained", "complaint"),
    [
        ("vit_tiny_patch16_224", "vit_small_patch16_224", "does not hold weights of vit_tiny_patch16_224"),
        ("vit_small_patch16_18x2_224", True, "no published ImageNet weights .* with vit vit_small_patch16_18x2_224"),
    ],
)
def test_a_name_of_other_weights_is_refused_before_any_download(vit: str, pretrained: Any, complaint: str) -> None:
    with pytest.raises(WeightsError, match=complaint):
        create_model("unetr2d", vit=vit, pretrained=pretrained, **SMALL)


def test_a_silent_hub_names_the_file_of_every_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from vitrim.models import timm_weights

    monkeypatch.setattr(timm_weights.hub, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setattr(timm_weights.hub, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError) as caught:
        create_model("cats2d", vit="vit_base_patch14_dinov2.lvd142m", num_classes=2, pretrained=True)
    message = str(caught.value)
    assert "`hf download timm/vit_base_patch14_dinov2.lvd142m model.safetensors`" in message
    assert "as vit_base_patch14_dinov2.lvd142m.safetensors, resnet50." in message
    assert "no answer from http://127.0.0.1:9" in message
