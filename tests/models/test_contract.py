"""All vitrim networks have the same interface and truncation rules."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from timm.models.vision_transformer import Block

from vitrim.errors import InputError
from vitrim.models.checkpoint import load_model, save_model
from vitrim.models.describe import count_macs, count_parameters, describe
from vitrim.models.factory import create_model
from vitrim.models.network import Network

NETWORKS = ["transunet", "cats2d", "unetr2d"]


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Network:
    torch.manual_seed(0)
    model = create_model(
        request.param, num_classes=4, size="micro", width=0.125, image_size=(64, 96), in_chans=1, backbone="resnet18"
    )
    return model.eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 1, 64, 96, generator=torch.Generator().manual_seed(1))


def test_the_blocks_are_timms_in_order_and_the_grid_has_a_token_a_patch(network: Network) -> None:
    assert [type(block) for block in network.blocks] == [Block] * 12
    assert network.depth == 12
    assert network.token_grid == (4, 6)
    assert all(block.attn.fused_attn for block in network.blocks)


def test_images_become_logits_of_the_same_size(network: Network, images: torch.Tensor) -> None:
    assert network(images).shape == (2, 4, 64, 96)


def test_every_parameter_takes_part_in_the_forward_pass(network: Network, images: torch.Tensor) -> None:
    for depth in (12, 7, 3, 1):
        shorter = network.truncated(depth)
        shorter(images).square().mean().backward()
        assert [name for name, p in shorter.named_parameters() if p.grad is None] == []


def test_truncated_to_its_full_depth_a_network_gives_identical_logits(network: Network, images: torch.Tensor) -> None:
    with torch.no_grad():
        assert torch.equal(network.truncated(12)(images), network(images))


@pytest.mark.parametrize("depth", range(1, 13))
def test_truncation_keeps_what_survives_and_changes_nothing_else(
    network: Network, images: torch.Tensor, depth: int
) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    shorter = network.truncated(depth)

    assert (shorter.depth, len(shorter.blocks), shorter.token_grid) == (depth, depth, network.token_grid)
    assert shorter.taps[-1] == depth
    assert shorter(images).shape == (2, 4, 64, 96)
    after = shorter.state_dict()
    cut = []
    for name, tensor in after.items():
        original = before[name]
        if tensor.shape == original.shape:
            assert torch.equal(tensor, original), name
        else:
            cut.append(name)
            assert torch.equal(tensor, original[:, original.shape[1] // 2 :]), name
    if network.config.name == "unetr2d" and depth < 10:
        start = {1: "2", 4: "4", 7: "8"}[(depth - 1) // 3 * 3 + 1]
        assert cut == [f"convs.{start}.0.0.weight"]
    else:
        assert cut == []
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_truncation_draws_no_random_number(network: Network) -> None:
    state = torch.get_rng_state()
    network.truncated(3)
    assert torch.equal(torch.get_rng_state(), state)


def test_truncating_twice_is_truncating_once(network: Network) -> None:
    once, twice = network.truncated(2).state_dict(), network.truncated(7).truncated(2).state_dict()
    assert list(once) == list(twice)
    assert all(torch.equal(once[name], twice[name]) for name in once)


def test_a_truncated_network_is_the_one_created_with_that_depth(network: Network) -> None:
    config = network.config
    created = create_model(**{**config.model_dump(), "depth": 5})
    shapes = {name: tensor.shape for name, tensor in created.state_dict().items()}
    assert {name: tensor.shape for name, tensor in network.truncated(5).state_dict().items()} == shapes


def test_depths_that_a_network_has_not_are_refused(network: Network) -> None:
    with pytest.raises(InputError, match=r"cannot truncate .* to 13"):
        network.truncated(13)
    with pytest.raises(InputError, match=r"cannot truncate .* to 7"):
        network.truncated(6).truncated(7)
    with pytest.raises(InputError, match=r"cannot truncate .* to -1"):
        network.truncated(-1)


def test_without_blocks_only_unetr_has_no_form(network: Network, images: torch.Tensor) -> None:
    if network.config.name == "unetr2d":
        with pytest.raises(InputError, match="cannot truncate unetr2d to 0"):
            network.truncated(0)
        with pytest.raises(InputError, match="no depth 0"):
            create_model("unetr2d", num_classes=2, depth=0)
    else:
        bare = network.truncated(0)
        assert (len(bare.blocks), bare.taps) == (0, ())
        assert bare(images).shape == (2, 4, 64, 96)


@pytest.mark.parametrize("depth", [12, 7, 1])
def test_a_checkpoint_gives_the_network_back_to_the_bit(
    network: Network, images: torch.Tensor, depth: int, tmp_path: Path
) -> None:
    shorter = network.truncated(depth)
    save_model(shorter, tmp_path / "first")
    loaded = load_model(tmp_path / "first")
    save_model(loaded, tmp_path / "second")

    assert not loaded.training
    assert loaded.config == shorter.config
    assert loaded.initialised_from == "random"
    assert torch.equal(loaded(images), shorter(images))
    for file in ("model.safetensors", "model.json"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_images_of_another_shape_are_refused(network: Network) -> None:
    with pytest.raises(InputError, match=r"takes images \(batch, 1, 64, 96\), got \(2, 1, 64, 64\)"):
        network(torch.zeros(2, 1, 64, 64))
    with pytest.raises(InputError, match=r"got \(2, 2, 64, 96\)"):
        network(torch.zeros(2, 2, 64, 96))


def test_the_description_adds_up(network: Network) -> None:
    description = describe(network)
    assert sum(part.parameters for part in description.parts) == count_parameters(network)
    assert sum(part.multiply_adds for part in description.parts) == count_macs(network)
    table = str(description)
    assert "4 × 6 = 24 tokens" in table
    assert "vit.blocks" in table
    assert f"{count_parameters(network):,}" in table
