"""What holds on a CPU holds on a GPU. Every test here needs a GPU and is skipped without one."""

from __future__ import annotations

import warnings

import nibabel as nib
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import vitrim as package
from tests.support import make_checkpoint, tiny_study, vitrim, write_tiny_data
from tests.training.test_loop import KilledAt, KilledError, Squares, config, network
from tests.training.test_tuning_loss import Inverted
from vitrim.attention.profiling import profile_attention
from vitrim.attention.softmax import dot_product
from vitrim.errors import InputError
from vitrim.models.layers import DoubleByInterpolation
from vitrim.training.loop import train_network

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU (CUDA)")

NETWORKS = ("transunet", "cats2d", "unetr2d")
PRECISIONS = ("32-true", "tf32", "bf16-mixed", "16-mixed")


def on_gpu(**changes):
    return config(device="gpu", **changes)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_training_that_dies_ends_with_the_same_bytes(tmp_path, monkeypatch, name, precision):
    monkeypatch.setattr("vitrim.training.resume.SHARE", float("inf"))  # a state after every step
    settings = on_gpu(precision=precision, workers=2)
    whole, again = network(name), network(name)
    expected = train_network(whole, Squares(), settings, 3)
    with pytest.raises(KilledError):
        train_network(network(name), Squares(), settings, 3, state=tmp_path / "state", watch=KilledAt(4))
    found = train_network(again, Squares(), settings, 3, state=tmp_path / "state")
    assert found.losses == expected.losses
    for key, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[key]), key


@pytest.mark.parametrize("name", NETWORKS)
def test_augmented_slices_and_the_best_checkpoint_are_the_same_after_a_death(tmp_path, monkeypatch, name):
    monkeypatch.setattr("vitrim.training.resume.SHARE", float("inf"))  # a state after every step
    settings = on_gpu(steps=10, precision="bf16-mixed", workers=2, augment="light", checkpoint="best")
    whole, again, plain = network(name), network(name), network(name)
    expected = train_network(whole, Squares(), settings, 3, tuning=Inverted())
    with pytest.raises(KilledError):
        train_network(network(name), Squares(), settings, 3, tuning=Inverted(), state=tmp_path / "s", watch=KilledAt(6))
    found = train_network(again, Squares(), settings, 3, tuning=Inverted(), state=tmp_path / "s")
    assert (found.losses, found.tuning_losses) == (expected.losses, expected.tuning_losses)
    for key, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[key]), key
    assert train_network(plain, Squares(), settings.model_copy(update={"checkpoint": "last"}), 3).losses == found.losses


@pytest.mark.parametrize("name", NETWORKS)
def test_no_operation_of_a_training_is_random(name):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*determinis.*")
        for precision in PRECISIONS:
            train_network(network(name), Squares(), on_gpu(steps=2, precision=precision), 3)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_in_float32_is_that_of_a_cpu(name):
    expected = train_network(network(name), Squares(), config(steps=4), 3).losses
    found = train_network(network(name), Squares(), on_gpu(steps=4), 3).losses
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert found == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_step_waits_for_the_card(precision):
    def watch(moment):
        # The first steps set things up. From then on, an operation that waits raises an error.
        torch.cuda.set_sync_debug_mode("error" if 3 <= moment.step < 19 else "default")

    try:
        train_network(network(), Squares(), on_gpu(steps=20, precision=precision, workers=0), 3, watch=watch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_compiled_training_learns_as_a_plain_one():
    plain = train_network(network(), Squares(), on_gpu(steps=6), 3).losses
    compiled = train_network(network(), Squares(), on_gpu(steps=6, compile=True), 3).losses
    assert compiled[0] == pytest.approx(plain[0], rel=1e-4)
    assert compiled == pytest.approx(plain, rel=2e-2)


def test_a_loss_that_is_not_finite_ends_the_training():
    broken = network()
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    with pytest.raises(InputError, match="loss became nan at step 1"):
        train_network(broken, Squares(), on_gpu(), 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_doubling_has_the_gradient_of_interpolation(dtype):
    images = torch.randn(2, 16, 14, 7, device="cuda", dtype=dtype).contiguous(memory_format=torch.channels_last)
    ours, theirs = images.clone().requires_grad_(), images.clone().requires_grad_()
    doubled = DoubleByInterpolation.apply(ours)
    expected = F.interpolate(theirs, scale_factor=2, mode="bilinear", align_corners=True)
    assert torch.equal(doubled, expected)
    gradient = torch.randn_like(expected)
    doubled.backward(gradient)
    expected.backward(gradient)
    limit = 1e-5 if dtype == torch.float32 else 5e-2
    assert torch.allclose(ours.grad, theirs.grad, atol=limit, rtol=limit)


def test_a_batch_that_does_not_fit_is_one_line_that_says_what_fits():
    class Many(Squares):
        def __len__(self) -> int:
            return 4096

        def __getitem__(self, item: int) -> dict[str, torch.Tensor]:
            return super().__getitem__(item % 10)

    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e9 / total)
    try:
        with pytest.raises(
            InputError, match=r"^4096 slices do not fit into the GPU's memory; \d+ do: set training.batch"
        ):
            train_network(network(), Many(), on_gpu(batch_size=4096, steps=1, workers=0), 3)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def test_more_gpus_than_there_are_is_one_line(tmp_path, capsys):
    many = torch.cuda.device_count() + 1
    write_tiny_data(tmp_path / "data")
    tiny_study(tmp_path / "tiny.yaml", training={"steps": 4, "batch_size": 4 * many, "devices": many})
    assert vitrim("study", tmp_path / "tiny.yaml", "--data", tmp_path / "data", "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    assert "GPU" in error


@pytest.fixture(scope="module")
def predictions(tmp_path_factory):
    """Label maps of a trained network by the GPU in several precisions, and by the CPU."""
    folder = tmp_path_factory.mktemp("predictions")
    write_tiny_data(folder / "data")
    tiny_study(folder / "tiny.yaml", training={"steps": 60, "batch_size": 4, "learning_rate": 1e-3})
    package.train(folder / "tiny.yaml", folder / "network", data=folder / "data")
    images = folder / "data" / "imagesTr"
    for precision in ("float32", "tf32", "bf16", "fp16"):
        package.predict(folder / "network", images, folder / precision, precision=precision)
    from vitrim.hardware import Hardware

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vitrim.inference.torch_engine.Hardware.choose", lambda *_: Hardware("cpu", "32-true"))
        package.predict(folder / "network", images, folder / "cpu", precision="float32")
    return folder


@pytest.mark.parametrize(("precision", "same"), [("float32", 0.9999), ("tf32", 0.999), ("bf16", 0.99), ("fp16", 0.999)])
def test_labels_are_those_of_a_cpu(predictions, precision, same):
    shares = []
    for path in sorted((predictions / "cpu").glob("*.nii.gz")):
        ours, theirs = (
            np.asarray(nib.load(folder / path.name).dataobj) for folder in (predictions / precision, path.parent)
        )
        assert theirs.any()
        shares.append((ours == theirs).mean())
    assert np.mean(shares) >= same


def test_attention_is_that_of_a_cpu():
    model = package.create_model("unetr2d", num_classes=2, size="micro", width=0.25, image_size=64, in_chans=1).eval()
    images = torch.randn(4, 1, 64, 64)
    expected = profile_attention(model, images).table()
    found = profile_attention(model.cuda(), images).table()
    numbers = expected.select_dtypes("number").columns
    assert np.allclose(expected[numbers], found[numbers], atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_half_precision_are_as_exact_as_in_float32(dtype):
    query, key = torch.randn(2, 2, 3, 50, 24, device="cuda").mul(3).to(dtype)
    found = dot_product(query, key, scale=0.3).compute(skip=1)
    expected = torch.softmax(0.3 * query[:, :, 1:].double() @ key[:, :, 1:].double().transpose(-2, -1), dim=-1)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), expected, atol=1e-5)


def test_a_network_is_exported_on_a_machine_with_a_gpu(tmp_path, capsys):
    checkpoint = make_checkpoint(tmp_path / "network")
    assert vitrim("export", checkpoint, "-o", tmp_path / "network.onnx") == 0
    assert (tmp_path / "network.onnx").is_file()


def test_a_study_runs_and_says_which_card(tmp_path):
    write_tiny_data(tmp_path / "data")
    tiny_study(tmp_path / "tiny.yaml", attention={"slices": 1})
    assert vitrim("study", tmp_path / "tiny.yaml", "--data", tmp_path / "data", "--out", tmp_path / "out") == 0
    assert torch.cuda.get_device_name() in (tmp_path / "out" / "study.json").read_text()
    assert (tmp_path / "out" / "report.html").is_file()
