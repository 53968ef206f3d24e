"""Imported checkpoints of the public TransUNet code give the results of that code."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from tests.support import vitrim
from vitrim.commands.import_transunet import import_transunet
from vitrim.config.schema import DataConfig
from vitrim.data.recipe import stored_recipe
from vitrim.errors import InputError
from vitrim.models.checkpoint import load_model
from vitrim.models.factory import create_model
from vitrim.models.network import Network
from vitrim.models.transunet_release import _release_names

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference"
needs_reference = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason="the outputs of the release are not available in shared/reference"
)


def fixtures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fixtures", REFERENCE / "fixtures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def release_state(network: Network) -> dict[str, torch.Tensor]:
    """Tensors of `network` with the names of the release."""
    state = {}
    for name, tensor in network.state_dict().items():
        parts = _release_names(name)
        state.update(zip(parts, tensor.chunk(len(parts)) if len(parts) > 1 else [tensor], strict=True))
    return {name: tensor.clone() for name, tensor in state.items()}


@pytest.fixture
def small() -> Network:
    torch.manual_seed(0)
    choices = {"num_classes": 5, "depth": 2, "size": "tiny", "image_size": 64, "stem": "release", "in_chans": 1}
    return create_model("transunet", **choices).eval()  # type: ignore[arg-type]


def save(state: object, path: Path) -> Path:
    torch.save(state, path)
    return path


def attention_maps(network: Network, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute logits, and the head-averaged attention of every block (blocks, B, N, N) from queries and keys."""
    maps = []

    def look(attention: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        tokens = inputs[0]
        batch, count, dim = tokens.shape
        heads = attention.num_heads
        q, k, _ = attention.qkv(tokens).reshape(batch, count, 3, heads, dim // heads).permute(2, 0, 3, 1, 4)
        maps.append((q @ k.transpose(-1, -2) / (dim // heads) ** 0.5).softmax(-1).mean(1))

    hooks = [block.attn.register_forward_pre_hook(look) for block in network.blocks]
    with torch.no_grad():
        logits = network(images)
    for hook in hooks:
        hook.remove()
    return logits, torch.stack(maps)


def relative_error(ours: torch.Tensor, theirs: np.ndarray) -> float:
    """Mean absolute difference divided by mean absolute value."""
    expected = torch.from_numpy(theirs)
    return float((ours - expected).abs().mean() / expected.abs().mean())


@needs_reference
def test_logits_and_attention_are_those_of_the_release(tmp_path: Path) -> None:
    shapes = json.loads((REFERENCE / "transunet_release_parameters.json").read_text())
    state = {name: torch.from_numpy(np.asarray(fixtures().tensor(name, shape))) for name, shape in shapes.items()}
    import_transunet(save(state, tmp_path / "release.pth"), tmp_path / "ours")
    network = load_model(tmp_path / "ours")
    outputs = np.load(REFERENCE / "transunet_release_outputs.npz", allow_pickle=False)

    logits, maps = attention_maps(network, torch.from_numpy(fixtures().image(2, 1, 224)))

    assert not network.training
    assert network.initialised_from == "public TransUNet release, release.pth"
    assert relative_error(logits[:, :, ::8, ::8], outputs["logits"]) < 1e-5
    # The release in float32 differs from float64 by 2.4e-5 (norm) here, so rounding does not allow a tighter limit.
    assert relative_error(maps[:, :, ::14, ::7], outputs["attention"]) < 1e-5


def test_an_imported_network_is_the_same_after_a_round_trip(small: Network, tmp_path: Path) -> None:
    state = {f"module.{name}": tensor for name, tensor in release_state(small).items()}
    network = import_transunet(save({"state_dict": state, "epoch": 3}, tmp_path / "release.pth"), tmp_path / "ours")
    assert network.config == small.config
    images = torch.randn(1, 1, 64, 64)
    assert torch.equal(load_model(tmp_path / "ours")(images), small(images))


def test_images_are_prepared_as_the_public_code_did_unless_a_study_says_otherwise(
    small: Network, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(release_state(small), tmp_path / "release.pth")
    assert vitrim("import", "transunet", path, "-o", tmp_path / "ours") == 0
    said = capsys.readouterr().out
    assert "note: the file does not say how its images are prepared" in said
    assert "classes: 0 background, 1 class 1, 2 class 2" in said
    recipe = stored_recipe(tmp_path / "ours")
    assert recipe is not None
    data = recipe.data
    assert (data.scaling, data.normalize, data.clip, data.image_size) == ("zoom", "unit", (-125, 275), (64, 64))
    assert data.layout == "decathlon"  # five classes are not those of Synapse
    with pytest.raises(InputError, match="say with --study how images of 3 channels are prepared"):
        import_transunet(path, tmp_path / "colour", channels=3)


def test_nine_classes_are_taken_for_the_organs_of_synapse(tmp_path: Path) -> None:
    made = create_model("transunet", num_classes=9, depth=0, size="micro", image_size=32, stem="release", in_chans=1)
    import_transunet(save(release_state(made), tmp_path / "release.pth"), tmp_path / "ours")
    recipe = stored_recipe(tmp_path / "ours")
    assert recipe is not None
    assert (recipe.data.layout, recipe.classes[1], recipe.classes[8]) == ("synapse", "aorta", "stomach")


def test_how_images_are_prepared_is_said_once_and_stored(small: Network, tmp_path: Path) -> None:
    path = save(release_state(small), tmp_path / "release.pth")
    data = DataConfig(image_size=64, classes=["a", "b", "c", "d"], normalize="unit", clip=(-125, 275))
    import_transunet(path, tmp_path / "ours", study=data)
    recipe = stored_recipe(tmp_path / "ours")
    assert recipe is not None
    assert recipe.data.clip == (-125, 275)
    assert recipe.classes == {0: "background", 1: "a", 2: "b", 3: "c", 4: "d"}
    with pytest.raises(InputError, match="takes images of"):
        import_transunet(path, tmp_path / "other", study=DataConfig(image_size=96))
    assert not (tmp_path / "other").exists()


def test_blocks_classes_width_and_image_size_follow_from_the_tensors(tmp_path: Path) -> None:
    made = create_model("transunet", num_classes=3, depth=0, size="small", image_size=96, stem="release")
    path = save(release_state(made), tmp_path / "release.pth")
    config = import_transunet(path, tmp_path / "ours", channels=3, study=DataConfig(image_size=96)).config
    assert config == made.config


def test_missing_surplus_and_misshapen_tensors_are_named_and_nothing_is_written(small: Network, tmp_path: Path) -> None:
    state = release_state(small)
    del state["decoder.conv_more.0.weight"]
    state["decoder.extra"] = torch.zeros(1)
    state["segmentation_head.0.bias"] = torch.zeros(9)
    with pytest.raises(InputError) as caught:
        import_transunet(save(state, tmp_path / "release.pth"), tmp_path / "ours")
    message = str(caught.value)
    assert "missing: decoder.conv_more.0.weight" in message
    assert "unexpected: decoder.extra" in message
    assert "segmentation_head.0.bias (9,) instead of (5,)" in message
    assert not (tmp_path / "ours").exists()


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no checkpoint of the public TransUNet code"):
        import_transunet(save({"a.weight": torch.zeros(2)}, tmp_path / "file.pth"), tmp_path / "ours")


def test_a_position_embedding_that_is_not_square_is_refused(small: Network, tmp_path: Path) -> None:
    state = release_state(small)
    state["transformer.embeddings.position_embeddings"] = torch.zeros(1, 35, 192)
    with pytest.raises(InputError, match="35 positions"):
        import_transunet(save(state, tmp_path / "release.pth"), tmp_path / "ours")
