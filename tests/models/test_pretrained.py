"""ImageNet weights from small files in timm's and Google's formats are loaded as timm loads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from vitrim.errors import InputError
from vitrim.models import timm_weights
from vitrim.models.checkpoint import load_model, save_model
from vitrim.models.factory import create_model
from vitrim.models.network import Network

TINY: dict[str, Any] = {"embed_dim": 192, "num_heads": 3}
UNETR: dict[str, Any] = {"num_classes": 2, "size": "tiny", "width": 0.125, "depth": 2, "image_size": 64}
TRANSUNET: dict[str, Any] = {"num_classes": 2, "size": "tiny", "depth": 1, "image_size": 64}
CATS: dict[str, Any] = {**UNETR, "width": 1.0, "backbone": "resnet18"}


@pytest.fixture
def vit() -> nn.Module:
    """A ViT like a pretrained one: class token, classifier, 3 blocks, images of 96 × 96."""
    return jittered(timm.create_model("vit_base_patch16_224", depth=3, img_size=96, num_classes=11, **TINY))


@pytest.fixture
def hybrid() -> nn.Module:
    return jittered(timm.create_model("vit_base_r50_s16_224", depth=1, img_size=96, num_classes=0, **TINY))


def jittered(model: nn.Module) -> nn.Module:
    """Add noise to every parameter, so that a tensor that was not loaded is detected."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(0.02 * torch.randn(tensor.shape, generator=generator))
    return model.eval()


def google(vit: nn.Module) -> dict[str, np.ndarray]:
    """Tensors of a timm ViT or hybrid with the names and layouts of Google's npz files."""

    def conv(weight: torch.Tensor) -> np.ndarray:
        return weight.permute(2, 3, 1, 0).numpy()

    state = {name: tensor.detach() for name, tensor in vit.state_dict().items()}
    dim, heads = vit.embed_dim, vit.blocks[0].attn.num_heads  # type: ignore[union-attr,index]
    out = {
        "cls": state["cls_token"].numpy(),
        "embedding/kernel": conv(state["patch_embed.proj.weight"]),
        "embedding/bias": state["patch_embed.proj.bias"].numpy(),
        "Transformer/posembed_input/pos_embedding": state["pos_embed"].numpy(),
        "Transformer/encoder_norm/scale": state["norm.weight"].numpy(),
        "Transformer/encoder_norm/bias": state["norm.bias"].numpy(),
    }
    for number in range(len(vit.blocks)):  # type: ignore[arg-type]
        ours, theirs = f"blocks.{number}.", f"Transformer/encoderblock_{number}/"
        attention = theirs + "MultiHeadDotProductAttention_1/"
        for name, w, b in zip(
            ("query", "key", "value"),
            state[ours + "attn.qkv.weight"].chunk(3),
            state[ours + "attn.qkv.bias"].chunk(3),
            strict=True,
        ):
            out[f"{attention}{name}/kernel"] = w.T.reshape(dim, heads, dim // heads).numpy()
            out[f"{attention}{name}/bias"] = b.reshape(heads, dim // heads).numpy()
        out[attention + "out/kernel"] = state[ours + "attn.proj.weight"].T.reshape(heads, dim // heads, dim).numpy()
        out[attention + "out/bias"] = state[ours + "attn.proj.bias"].numpy()
        for norm, layer in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
            out[f"{theirs}{layer}/scale"] = state[f"{ours}{norm}.weight"].numpy()
            out[f"{theirs}{layer}/bias"] = state[f"{ours}{norm}.bias"].numpy()
        for layer in (0, 1):
            out[f"{theirs}MlpBlock_3/Dense_{layer}/kernel"] = state[f"{ours}mlp.fc{layer + 1}.weight"].T.numpy()
            out[f"{theirs}MlpBlock_3/Dense_{layer}/bias"] = state[f"{ours}mlp.fc{layer + 1}.bias"].numpy()
    stem = "patch_embed.backbone."
    if f"{stem}stem.conv.weight" in state:
        out["conv_root/kernel"] = conv(state[f"{stem}stem.conv.weight"])
        out["gn_root/scale"], out["gn_root/bias"] = (state[f"{stem}stem.norm.{n}"].numpy() for n in ("weight", "bias"))
    for name, tensor in state.items():
        if name.startswith(f"{stem}stages."):
            _, _, _, stage, _, unit, layer, *rest = name.split(".")
            path = f"block{int(stage) + 1}/unit{int(unit) + 1}/"
            if layer == "downsample":
                layer = {"conv": "conv_proj", "norm": "gn_proj"}[rest[0]]
            layer = layer.replace("norm", "gn")
            ending = "kernel" if "conv" in layer else {"weight": "scale", "bias": "bias"}[rest[-1]]
            out[f"{path}{layer}/{ending}"] = conv(tensor) if ending == "kernel" else tensor.numpy()
    return out


def write(model: nn.Module, path: Path) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **google(model))  # type: ignore[arg-type]
    elif path.suffix == ".safetensors":
        save_file(model.state_dict(), path)
    else:
        torch.save({"model": model.state_dict(), "epoch": 1}, path)
    return path


def tokens(network: Network, images: torch.Tensor) -> torch.Tensor:
    assert network.vit is not None
    features = network.stem(images)[-1] if hasattr(network, "stem") else images
    with torch.no_grad():
        return network.vit(features, ())[0]


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".npz"])
def test_a_vit_from_a_file_gives_the_tokens_that_timm_gives(vit: nn.Module, tmp_path: Path, suffix: str) -> None:
    path = write(vit, tmp_path / f"weights{suffix}")
    network = create_model("unetr2d", **{**UNETR, "image_size": 96, "depth": 3}, pretrained=str(path)).eval()
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        embedded = vit.patch_embed(images) + vit.pos_embed[:, 1:]  # type: ignore[operator,index]
        expected = vit.norm(vit.blocks(embedded))  # type: ignore[operator]
    found = tokens(network, images).flatten(2).transpose(1, 2)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_a_hybrid_from_a_file_fills_stem_and_vit(hybrid: nn.Module, tmp_path: Path, suffix: str) -> None:
    path = write(hybrid, tmp_path / f"weights{suffix}")
    network = create_model("transunet", **{**TRANSUNET, "image_size": 96}, pretrained=str(path)).eval()
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        features = hybrid.patch_embed.backbone.forward_intermediates(images, intermediates_only=True)  # type: ignore[union-attr,operator]
        embedded = hybrid.patch_embed(images) + hybrid.pos_embed[:, 1:]  # type: ignore[operator,index]
        expected = hybrid.norm(hybrid.blocks(embedded))  # type: ignore[operator]
        stem = network.stem(images)  # type: ignore[operator]
    for found, wanted in zip(stem, features, strict=True):
        torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(tokens(network, images).flatten(2).transpose(1, 2), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_other_depths_channels_and_sizes_are_adapted_as_timm_adapts_them(
    vit: nn.Module, tmp_path: Path, suffix: str
) -> None:
    path = write(vit, tmp_path / f"weights{suffix}")
    network = create_model("unetr2d", **{**UNETR, "image_size": (64, 128), "in_chans": 4}, pretrained=str(path))
    settings = {"depth": 2, "img_size": (64, 128), "in_chans": 4, "num_classes": 0, **TINY}
    overlay = {"file": str(path), "custom_load": suffix == ".npz"}
    theirs = timm.create_model(
        "vit_base_patch16_224", pretrained=True, pretrained_cfg_overlay=overlay, pretrained_strict=False, **settings
    )
    ours = network.state_dict()
    assert torch.equal(ours["vit.pos_embed"], theirs.pos_embed[:, 1:])
    assert torch.equal(ours["vit.patch_embed.weight"], theirs.patch_embed.proj.weight)
    for name, tensor in theirs.blocks.state_dict().items():
        assert torch.equal(ours[f"vit.blocks.{name}"], tensor), name


def test_one_channel_keeps_the_pretrained_stem_since_it_is_repeated(vit: nn.Module, tmp_path: Path) -> None:
    path = write(vit, tmp_path / "vit.pth")
    network = create_model("unetr2d", **{**UNETR, "in_chans": 1}, pretrained=str(path))
    assert torch.equal(network.state_dict()["vit.patch_embed.weight"], vit.state_dict()["patch_embed.proj.weight"])


def test_cats_takes_its_vit_and_its_cnn_from_two_files_or_from_a_folder(vit: nn.Module, tmp_path: Path) -> None:
    cnn = jittered(timm.create_model("resnet18", num_classes=7))
    write(vit, tmp_path / "vit_tiny_patch16_224.augreg_in21k.npz")
    write(cnn, tmp_path / "resnet18.safetensors")
    pair = f"{tmp_path / 'vit_tiny_patch16_224.augreg_in21k.npz'}, {tmp_path / 'resnet18.safetensors'}"
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        wanted = cnn.forward_intermediates(images, indices=4, intermediates_only=True)  # type: ignore[operator]
    for pretrained in (pair, str(tmp_path)):
        network = create_model("cats2d", **CATS, pretrained=pretrained).eval()
        with torch.no_grad():
            found = network.cnn(images)  # type: ignore[operator]
        assert torch.equal(network.state_dict()["vit.norm.weight"], vit.state_dict()["norm.weight"])
        assert len(found) == 4
        for feature in found:
            assert any(
                feature.shape == other.shape and torch.allclose(feature, other)
                for other in [*wanted, *stem(cnn, images)]
            )
        assert network.initialised_from.startswith("ViT: file vit_tiny_patch16_224.augreg_in21k.npz (sha256 ")
        assert "CNN: file resnet18.safetensors" in network.initialised_from


def stem(resnet: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Features of a ResNet at 1/2, 1/4, 1/8 and 1/16."""
    with torch.no_grad():
        half = resnet.act1(resnet.bn1(resnet.conv1(images)))  # type: ignore[operator]
        quarter = resnet.layer1(resnet.maxpool(half))  # type: ignore[operator]
        eighth = resnet.layer2(quarter)  # type: ignore[operator]
        return [half, quarter, eighth, resnet.layer3(eighth)]  # type: ignore[operator]


def test_a_part_of_cats_can_be_left_random_and_says_so(vit: nn.Module, tmp_path: Path) -> None:
    path = write(vit, tmp_path / "vit.npz")
    network = create_model("cats2d", **CATS, pretrained=f"{path},random")
    assert network.initialised_from.endswith("CNN: random")


def test_one_file_for_the_two_parts_of_cats_is_refused(vit: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="weights for ViT and CNN"):
        create_model("cats2d", **CATS, pretrained=str(write(vit, tmp_path / "vit.npz")))


def test_the_checkpoint_and_a_truncated_network_say_what_the_weights_were(vit: nn.Module, tmp_path: Path) -> None:
    network = create_model("unetr2d", **UNETR, pretrained=str(write(vit, tmp_path / "vit.npz")))
    save_model(network.truncated(1), tmp_path / "saved")
    (tmp_path / "vit.npz").unlink()
    loaded = load_model(tmp_path / "saved")
    assert loaded.initialised_from == network.initialised_from
    assert loaded.initialised_from.startswith("ViT: file vit.npz (sha256 ")


def test_pretrained_weights_leave_the_random_rest_and_the_generator_alone(vit: nn.Module, tmp_path: Path) -> None:
    path = write(vit, tmp_path / "vit.pth")
    torch.manual_seed(3)
    plain = create_model("unetr2d", **UNETR)
    after = torch.rand(1)
    torch.manual_seed(3)
    pretrained = create_model("unetr2d", **UNETR, pretrained=str(path))
    assert torch.equal(torch.rand(1), after)
    assert torch.equal(plain.state_dict()["head.weight"], pretrained.state_dict()["head.weight"])
    assert not torch.equal(plain.state_dict()["vit.norm.bias"], pretrained.state_dict()["vit.norm.bias"])


@pytest.mark.parametrize("network", ["unetr2d", "transunet", "cats2d"])
def test_a_hub_that_cannot_be_reached_is_an_error_that_names_the_local_file(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = timm.create_model

    def offline(*names: Any, **choices: Any) -> nn.Module:
        if choices.get("pretrained"):
            raise ConnectionError("no route to the hub")
        return real(*names, **choices)

    monkeypatch.setattr(timm_weights.timm, "create_model", offline)
    monkeypatch.setattr(timm_weights, "_answers", lambda address: True)
    choices = {**UNETR, "width": 1.0, "size": "base", "depth": 1}
    with pytest.raises(
        InputError,
        match=r"cannot get vit_base_.* \(no route to the hub\); on a machine with network run `hf download timm/",
    ):
        create_model(network, **choices, pretrained=True)


def test_a_hub_that_does_not_answer_is_asked_once_and_its_client_left_as_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(timm_weights.hub, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setattr(timm_weights.hub, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"\(no answer from http://127.0.0.1:9\); on a machine with network run"):
        create_model("unetr2d", **{**UNETR, "width": 1.0, "size": "base", "depth": 1}, pretrained=True)
    assert timm_weights.hub.HF_HUB_OFFLINE is False


def test_sizes_without_published_weights_are_refused_before_any_download() -> None:
    with pytest.raises(InputError, match=r"no published ImageNet weights .* size micro"):
        create_model("unetr2d", **{**UNETR, "size": "micro"}, pretrained=True)
    with pytest.raises(InputError, match=r"no published ImageNet weights .* width 0\.5"):
        create_model("transunet", **{**TRANSUNET, "size": "base", "width": 0.5}, pretrained=True)


def test_a_file_of_another_network_is_refused(vit: nn.Module, hybrid: nn.Module, tmp_path: Path) -> None:
    of_vit, of_hybrid = write(vit, tmp_path / "vit.pth"), write(hybrid, tmp_path / "hybrid.safetensors")
    cnn = write(timm.create_model("resnet18"), tmp_path / "resnet18.pth")
    for pretrained in (of_hybrid, cnn):
        with pytest.raises(InputError, match="weights of another network"):
            create_model("unetr2d", **UNETR, pretrained=str(pretrained))
    with pytest.raises(InputError, match="weights of another network"):
        create_model("transunet", **TRANSUNET, pretrained=str(of_vit))
    with pytest.raises(InputError, match=r"does not fit|has patches of"):
        create_model("transunet", **TRANSUNET, pretrained=str(write(vit, tmp_path / "vit.npz")))
    with pytest.raises(InputError, match="does not fit"):
        create_model("unetr2d", **{**UNETR, "size": "small"}, pretrained=str(of_vit))


def test_a_file_with_too_few_blocks_or_another_patch_is_refused(vit: nn.Module, tmp_path: Path) -> None:
    for suffix in (".pth", ".npz"):
        with pytest.raises(InputError, match=r"weights of another network|does not fit"):
            create_model("unetr2d", **{**UNETR, "depth": 4}, pretrained=str(write(vit, tmp_path / f"vit{suffix}")))
        coarse = timm.create_model("vit_base_patch32_224", depth=2, img_size=96, num_classes=0, **TINY)
        with pytest.raises(InputError, match="has patches of 32×32"):
            create_model("unetr2d", **UNETR, pretrained=str(write(coarse, tmp_path / f"coarse{suffix}")))


@pytest.mark.parametrize("wish", ["absent.npz", "nowhere/vit.pth", "no-such-model"])
def test_a_source_that_is_not_there_is_named(wish: str) -> None:
    with pytest.raises(InputError, match=wish):
        create_model("unetr2d", **UNETR, pretrained=wish)


def test_a_folder_without_the_weights_says_what_it_expected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected vit_tiny_patch16_224\.augreg_in21k or vit_tiny_patch16_224"):
        create_model("unetr2d", **UNETR, pretrained=str(tmp_path))


def test_a_broken_npz_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vit.npz").write_bytes(b"not an archive")
    with pytest.raises(InputError, match="does not fit"):
        create_model("unetr2d", **UNETR, pretrained=str(tmp_path / "vit.npz"))
