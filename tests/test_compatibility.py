"""What version 0.1.0 wrote is read by this one, and means the same."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import vitrim as package
from tests.support import vitrim, write_tiny_data
from vitrim.attention.decision import Decision
from vitrim.compression.depth_decision import DepthDecision, read_depth
from vitrim.config.schema import TrainConfig
from vitrim.inference.engine import open_engine
from vitrim.studies.trial import Trial
from vitrim.training.loop import train_network


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(Path(__file__).parent / "fixtures/vitrim-0.1.0.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "v0.1.0"


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, 1, 32, 32)).astype(np.float32)


def test_a_checkpoint_gives_the_same_logits(old: Path, image: np.ndarray) -> None:
    network = package.load_model(old / "checkpoint")
    with torch.no_grad():
        logits = network(torch.from_numpy(image))
    np.testing.assert_allclose(logits[:, :, ::4, ::4], np.load(old / "logits.npy"), atol=1e-5)


def test_an_onnx_file_gives_the_same_logits(old: Path, image: np.ndarray) -> None:
    engine = open_engine(old / "network.onnx")
    np.testing.assert_allclose(engine(image)[:, :, ::4, ::4], np.load(old / "logits.npy"), atol=1e-4)
    assert engine.recipe is not None
    assert engine.recipe.classes == {0: "background", 1: "bright", 2: "dark"}


def test_a_checkpoint_knows_its_cases(old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_tiny_data(tmp_path / "data", size=64, slices=2)
    assert vitrim("evaluate", old / "checkpoint", "--data", data, "--out", tmp_path / "found") == 0
    trial = json.loads((old / "checkpoint/trial.json").read_text())
    cases = pd.read_csv(tmp_path / "found/cases.csv")
    assert sorted(cases["case"].unique()) == sorted(trial["split"]["validation"])
    # the same network on the same cases, as 0.1.0 evaluated it before the weights were rounded: a Dice of each class
    assert set(cases["class"]) == {"bright", "dark"}


def test_a_study_is_reported_with_the_same_numbers(old: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(old / "study", tmp_path / "study"))
    before = pd.read_csv(run / "results.csv")
    written = package.write_report(run)
    assert {path.name for path in written} >= {"results.csv", "report.md", "report.html", "report.tex"}
    after = pd.read_csv(run / "results.csv")
    same = [column for column in before.columns if "verdict" not in column]
    pd.testing.assert_frame_equal(after[same], before[same], atol=0.02)
    assert (run / "networks/unetr2d/figures/decision.pdf").is_file()
    assert "2D UNETR" in (run / "report.md").read_text(encoding="utf-8")


def test_a_study_is_judged_again_and_says_so(old: Path, tmp_path: Path) -> None:
    """The verdict follows from the stored cases; the old decision stays as the answer of the attention rule."""
    run = Path(shutil.copytree(old / "study", tmp_path / "study"))
    folder = run / "networks/unetr2d"
    before = (folder / "decision.json").read_bytes()
    for _ in range(2):  # the second time changes nothing
        assert folder / "decision.json" in package.write_report(run)
        assert (folder / "attention_rule.json").read_bytes() == before
        decision = DepthDecision.load(folder / "decision.json")
        assert decision.verdict == "not shown"  # the study has too few held-out cases
        assert (decision.rule, decision.depth, decision.full) == ("globality", 12, 12)
        assert decision.proposed == json.loads(before)["depth"]
        text = (run / "report.md").read_text(encoding="utf-8")
        assert "No smaller depth of 2D UNETR was shown to be as good." in text
        assert "This version computed intervals and verdicts again." in text
        assert "corrected_verdict_5" not in pd.read_csv(run / "results.csv")


def test_a_decision_is_read_and_obeyed(old: Path, tmp_path: Path) -> None:
    path = old / "study/networks/unetr2d/decision.json"
    stored = json.loads(path.read_text())
    assert Decision.load(path).depth == stored["depth"]
    assert read_depth(path) == (stored["depth"], len(stored["blocks"]))


def test_trials_keep_their_names(old: Path) -> None:
    """The name is a hash of what decides the outcome: another one would train a finished study again."""
    folders = sorted((old / "study/trials").iterdir())
    assert len(folders) == 3
    for folder in folders:
        assert Trial.model_validate_json((folder / "trial.json").read_text()).key == folder.name


class Squares(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 12

    def __getitem__(self, item: int) -> dict[str, torch.Tensor]:
        image = torch.randn(1, 32, 32, generator=torch.Generator().manual_seed(item))
        return {"image": image, "label": (image[0] > 0).long()}


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_training_takes_the_same_steps(old: Path, schedule: str) -> None:
    torch.manual_seed(0)
    network = package.create_model(
        "unetr2d", num_classes=2, image_size=32, size="micro", width=0.125, depth=1, in_chans=1
    )
    assert network.vit is not None
    with torch.no_grad():  # 0.1.0 drew the linear layers of a micro ViT as those of size base
        for layer in network.vit.blocks.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.weight.mul_((128 / 768) ** 0.5)
    config = TrainConfig(
        steps=7, batch_size=4, learning_rate=1e-3, schedule=schedule, device="cpu", precision="32-true"
    )
    expected = json.loads((old / "losses.json").read_text())[schedule]
    assert train_network(network, Squares(), config, 3).losses == pytest.approx(expected, rel=1e-4)
