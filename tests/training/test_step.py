"""One step of a training: memory that does not suffice, the gradient of doubling, and a card that is not there."""

from __future__ import annotations

import weakref
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support import tiny_study, vitrim
from tests.training.test_loop import Squares, config
from vitrim.config.schema import TrainConfig
from vitrim.errors import ConfigurationError, InputError
from vitrim.hardware import Hardware, resolved
from vitrim.models.layers import DoubleByInterpolation
from vitrim.training.loop import train_network
from vitrim.training.readers import check_shared_memory


class Hungry(nn.Module):
    """A network for which memory suffices for `most` slices at once; it remembers what it held when it did not."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.conv, self.most = nn.Conv2d(1, 2, 1), most
        self.held: list[weakref.ref[Tensor]] = []
        self.left_over: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.left_over.append(sum(reference() is not None for reference in self.held))
        logits = self.conv(images)
        if len(images) > self.most:
            self.held.append(weakref.ref(logits))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return logits


@pytest.mark.parametrize(
    ("most", "way"), [(3, "2 do: set training.batch_size 2"), (1, "1 does: set"), (0, "not even 1")]
)
def test_a_batch_that_does_not_fit_is_one_line_that_says_what_fits(most, way):
    hungry = Hungry(most)
    with pytest.raises(InputError) as refusal:
        train_network(hungry, Squares(), config(batch_size=8), 3)
    assert str(refusal.value).startswith(f"8 slices do not fit into the GPU's memory; {way}")
    assert "\n" not in str(refusal.value)
    assert not any(hungry.left_over)  # each attempt had all the memory


@pytest.mark.parametrize("size", [(7, 7), (14, 5), (1, 3)])
def test_doubling_and_its_gradient_are_those_of_bilinear_interpolation(size):
    images = torch.randn(2, 8, *size, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    ours, theirs = images.clone().requires_grad_(), images.clone().requires_grad_()
    doubled = DoubleByInterpolation.apply(ours)
    expected = F.interpolate(theirs, scale_factor=2, mode="bilinear", align_corners=True)
    gradient = torch.randn_like(expected)
    doubled.backward(gradient)
    expected.backward(gradient)
    assert torch.equal(doubled, expected)
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-12)


@pytest.mark.skipif(torch.cuda.is_available(), reason="about a machine without a GPU")
@pytest.mark.parametrize("precision", ["tf32", "16-mixed"])
def test_a_precision_that_needs_a_gpu_is_refused_without_one(precision):
    with pytest.raises(ConfigurationError, match=f"precision {precision} needs a GPU"):
        Hardware.choose("auto", precision)


@pytest.mark.skipif(torch.cuda.is_available(), reason="about a machine without a GPU")
def test_on_a_cpu_the_training_reads_its_slices_itself():
    assert resolved(TrainConfig(steps=1)).workers == 0
    assert resolved(TrainConfig(steps=1, workers=2)).workers == 2


@pytest.mark.parametrize(("left", "fits"), [(70_000, 2), (20_000, 0)])
def test_processes_that_fill_shared_memory_are_refused_with_the_number_that_fits(monkeypatch, tmp_path, left, fits):
    """A slice takes 12 288 bytes here; each process holds two batches of one, and one more is in use."""
    monkeypatch.setattr("vitrim.training.readers.SHARED_MEMORY", tmp_path)
    monkeypatch.setattr("vitrim.training.readers.shutil.disk_usage", lambda path: SimpleNamespace(free=left))
    with pytest.raises(ConfigurationError, match=f"shared memory.* set training.workers to {fits},"):
        train_network(nn.Conv2d(1, 2, 1), Squares(), config(batch_size=1, workers=3), 3)
    check_shared_memory(config(batch_size=1, workers=fits), Squares())


@pytest.mark.slow
def test_without_a_compiler_a_training_that_torch_must_compile_says_to_leave_that_out(
    tiny_data_once, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "no-such-compiler"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    training = {"steps": 1, "batch_size": 2, "device": "cpu", "compile": True}
    study = tiny_study(tmp_path / "tiny.yaml", training=training)
    command = ("train", study, "--data", tiny_data_once, "--depth", 1, "--out", tmp_path / "out")
    assert vitrim(*command) == 1
    assert "torch cannot compile the network here, so leave training.compile out" in capsys.readouterr().err
