"""A model is built by what the user names: a function, or its place. What goes wrong there is one clear line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from vitrim.errors import InputError
from vitrim.models.adapt import Adapted, adapt
from vitrim.models.checkpoint import load_model, save_model
from vitrim.models.factory import create_model
from vitrim.models.opening import open_network, untrained_like
from vitrim.models.user_models import build_model

FILE = """
from dataclasses import dataclass

from torch import nn

import beside

@dataclass
class Widths:
    first: int

def build(width=4, *, bias=True):
    return nn.Linear(Widths(width).first, beside.OUT, bias=bias)

def nothing():
    return 3

def broken():
    return nn.Linear(0.5, "two")

number = 7
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("OUT = 2\n")
    (tmp_path / "my.model.py").write_text(FILE)
    return tmp_path / "my.model.py"


def test_a_function_of_a_file_builds_the_model_with_literal_arguments(file: Path) -> None:
    path = list(sys.path)
    assert build_model(f"{file}:build").weight.shape == (2, 4)
    built = build_model(f"{file}:build(8, bias=False)")
    assert (built.weight.shape, built.bias) == ((2, 8), None)
    assert sys.path == path


def test_a_class_of_a_package_and_a_function_at_hand_build_it_too() -> None:
    assert isinstance(build_model("torch.nn:Identity"), nn.Identity)
    assert isinstance(build_model("torch:nn.Sequential"), nn.Sequential)
    assert isinstance(build_model(nn.Identity), nn.Identity)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("FILE", "names no function: write package.module:function"),
        ("FILE:absent", "has no absent"),
        ("FILE:number", "number of .* is not a function"),
        ("FILE:nothing", "returns a int, not a torch module"),
        ("FILE:broken", "does not build a model: TypeError"),
        ("FILE:build(open('x'))", "must be literals"),
        ("FILE:build(", "names no function"),
        ("FILE:build(third=1)", "unexpected keyword argument 'third'"),
        ("no_such_package.at_all:build", "does not build a model: ModuleNotFoundError: No module named"),
        ("nowhere/model.py:build", r"no such file: nowhere/model\.py"),
    ],
)
def test_what_builds_no_model_is_said_in_one_line(place: str, said: str, file: Path) -> None:
    with pytest.raises(InputError, match=said) as caught:
        build_model(place.replace("FILE", str(file)))
    assert len(str(caught.value).splitlines()) == 1


def test_a_model_in_place_of_what_builds_it_is_refused() -> None:
    with pytest.raises(InputError, match=r"a function that returns a model, or the place of one .* not a model"):
        build_model(nn.Identity())


class Segmenter(nn.Module):
    """A ViT of timm with a head that returns logits for each pixel."""

    def __init__(self, classes: int = 3, channels: int = 3) -> None:
        super().__init__()
        options = {"img_size": 32, "patch_size": 16, "embed_dim": 12, "num_heads": 2, "depth": 3}
        self.vit = timm.create_model("vit_tiny_patch16_224", in_chans=channels, num_classes=0, **options)
        self.head = nn.ConvTranspose2d(12, classes, 16, 16)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.vit.forward_features(images)[:, 1:]
        return self.head(tokens.transpose(1, 2).unflatten(2, (2, 2)))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    torch.save(Segmenter().state_dict(), tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def test_the_weights_of_a_file_are_those_of_the_network(weights: Path) -> None:
    network = open_network(weights, Segmenter)
    torch.manual_seed(0)
    model = Segmenter().eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(network(images), model(images))
        gray = images[:, :1]
        assert torch.equal(network(gray), model(gray.expand(-1, 3, -1, -1)))
    assert isinstance(network, Adapted)
    assert (network.title, network.depth, network.in_chans, network.num_classes) == ("Segmenter", 3, 3, 3)
    assert (network.image_size, network.training, network.initialised_from) == ((32, 32), False, "weights.pth")


@pytest.mark.parametrize("prefix", ["model.", "net.module.", "_orig_mod."])
def test_the_prefix_of_a_training_framework_is_left_out(prefix: str, weights: Path, tmp_path: Path) -> None:
    state = torch.load(weights, weights_only=True)
    torch.save({"state_dict": {prefix + name: tensor for name, tensor in state.items()}}, tmp_path / "framework.ckpt")
    network = open_network(tmp_path / "framework.ckpt", Segmenter)
    assert all(torch.equal(tensor, state[name.removeprefix("model.")]) for name, tensor in network.state_dict().items())


def test_weights_that_do_not_fit_are_named(weights: Path) -> None:
    with pytest.raises(InputError, match=r"tensors of another shape: head\.weight \(12, 3, 16, 16\) instead of"):
        open_network(weights, lambda: Segmenter(classes=5))
    state = torch.load(weights, weights_only=True)
    torch.save({**state, "more": torch.zeros(1)}, weights)
    with pytest.raises(InputError, match="tensors unexpected: more"):
        open_network(weights, Segmenter)


def test_code_in_a_file_of_weights_does_not_run(tmp_path: Path) -> None:
    torch.save(Segmenter(), tmp_path / "whole.pth")
    with pytest.raises(InputError, match=r"cannot read .*whole\.pth as a state dict of tensors"):
        open_network(tmp_path / "whole.pth", Segmenter)


def test_a_network_and_what_builds_it_must_belong_together(weights: Path, tmp_path: Path) -> None:
    own = create_model("unetr2d", num_classes=2, size="micro", width=0.125, image_size=32, depth=1)
    save_model(own, tmp_path / "own")
    save_model(adapt(Segmenter()).truncated(1), tmp_path / "adapted")
    with pytest.raises(InputError, match=r"is a file, not the folder of a network; .* --model"):
        open_network(weights)
    with pytest.raises(InputError, match="a network of vitrim's own, which needs no --model"):
        open_network(tmp_path / "own", Segmenter)
    with pytest.raises(InputError, match=r"weights of a Segmenter of another library, not its code; .* --model"):
        open_network(tmp_path / "adapted")
    assert open_network(tmp_path / "adapted", Segmenter).depth == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda logits: [logits], "it returns a list"),
        (lambda logits: logits[:, :, ::2], r"it returns a tensor of shape \(2, 3, 16, 32\)"),
        (lambda logits: logits[:, :1], "it returns one channel, which leaves no class to choose"),
    ],
)
def test_a_model_without_logits_of_every_class_is_refused(change, said: str, weights: Path) -> None:
    class Other(Segmenter):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return change(super().forward(images))

    with pytest.raises(InputError, match=said):
        open_network(weights, Other)


def test_the_untrained_network_has_other_weights_and_the_same_blocks(weights: Path, tmp_path: Path) -> None:
    save_model(open_network(weights, Segmenter).truncated(2), tmp_path / "two")
    network = open_network(tmp_path / "two", Segmenter)
    untrained = untrained_like(network, Segmenter, seed=5)
    assert untrained.kept == (1, 2)
    same = untrained_like(network, Segmenter, seed=5).state_dict()
    assert all(torch.equal(tensor, same[name]) for name, tensor in untrained.state_dict().items())
    assert not torch.equal(untrained.model.head.weight, network.model.head.weight)
    assert load_model(tmp_path / "two", into=Segmenter()).kept == (1, 2)
