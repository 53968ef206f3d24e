"""Options beyond the paper's study: several seeds and folds, all depths, other starts; trial keys stay stable."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import vitrim as package
from tests.support import SHORT, tiny_study, vitrim
from vitrim.config.network_schema import NetworkConfig
from vitrim.config.reading import changed, load_study, whole_numbers
from vitrim.config.schema import TrainConfig
from vitrim.data.split import Split
from vitrim.errors import InputError
from vitrim.studies.plan import fixed_depths, left_out, origin_by_content
from vitrim.studies.recompute import recompute
from vitrim.studies.trial import Trial
from vitrim.training.loggers import make_logger


def run(folder: Path, data: Path, *options: object) -> Path:
    file = tiny_study(folder / "tiny.yaml", networks={"unetr2d": {}, "transunet": {}}, **SHORT)
    assert vitrim("study", file, "--data", data, "--out", folder / "out", "--tries", 0, *options) == 0
    return folder / "out"


@pytest.fixture(scope="module")
def two_seeds(tiny_data_once, tmp_path_factory):
    options = ("--seeds", "0,1", "--folds", 2, "--networks", "unetr2d", "--depths", "0,1")
    return run(tmp_path_factory.mktemp("seeds"), tiny_data_once, *options)


def test_every_seed_and_fold_is_trained_and_the_table_is_over_all_of_them(two_seeds):
    trials, results = pd.read_csv(two_seeds / "trials.csv"), pd.read_csv(two_seeds / "results.csv")
    full = trials[trials["blocks"] == 12]
    assert sorted(zip(full["seed"], full["fold"], strict=True)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert not trials["trial"].duplicated().any()
    assert not results[["network", "blocks", "init"]].duplicated().any()
    row = results[results["blocks"] == 12].iloc[0]
    assert (row["seeds"], row["folds"], row["validation_cases"]) == (2, 2, 8)
    cases = pd.read_csv(two_seeds / "cases.csv")
    own = cases[cases["blocks"] == 12].groupby(["class", "case"])["dice"].mean()
    assert own.groupby("class").mean().mean() == pytest.approx(row["average_dice"], abs=2e-6)
    by_seed = [part.groupby("class")["dice"].mean().mean() for _, part in cases[cases["blocks"] == 12].groupby("seed")]
    assert np.std(by_seed, ddof=1) == pytest.approx(row["average_dice_sd"], abs=2e-6)


def test_every_full_network_has_its_own_decision_on_its_own_training_cases(two_seeds):
    folds = json.loads((two_seeds / "split.json").read_text())
    assert not set(folds[0]["validation"]) & set(folds[1]["validation"])
    names = {(0, 0): "unetr2d", (0, 1): "unetr2d-seed0-fold1", (1, 0): "unetr2d-seed1-fold0"}
    for (_, fold), name in names.items():
        decision = json.loads((two_seeds / "networks" / name / "attention_rule.json").read_text())
        assert set(decision["cases"]) <= set(folds[fold]["train"])


def test_report_and_tables_follow_from_the_stored_cases_the_tables_to_the_byte(two_seeds, tmp_path):
    copy = Path(shutil.copytree(two_seeds, tmp_path / "copy"))
    (copy / "report.md").unlink()
    assert vitrim("report", copy) == 0
    assert "UNETR" in (copy / "report.md").read_text()
    assert (copy / "results.csv").read_bytes() == (two_seeds / "results.csv").read_bytes()
    cases = pd.read_csv(copy / "cases.csv")
    cases.loc[cases["blocks"] < 12, "dice"] = 0.0  # as if the truncated networks had failed
    cases.to_csv(copy / "cases.csv", index=False)
    recompute(copy)
    results = pd.read_csv(copy / "results.csv")
    assert (results["dice_change_percent"].dropna() == -100).all()
    assert set(results["verdict_5"].dropna()) == {"worse"}


def test_the_record_of_the_study_says_all_that_it_takes_to_repeat_it(two_seeds):
    record = json.loads((two_seeds / "study.json").read_text())
    assert record["seeds"] == [0, 1]
    assert set(record["splits"]) == {"0", "1"}
    assert record["initialised_from"] == {"unetr2d": "random"}
    assert record["versions"]["torch"] in torch.__version__
    assert record["cost"]["cpu_seconds"] > 0
    assert record["wall_seconds"] >= record["cost"]["train_seconds"]


def test_a_network_without_depth_0_is_left_out_of_that_depth_with_a_note():
    study = changed(load_study("demo"), depths=whole_numbers("0..2", "--depths"))
    assert fixed_depths(study, "unetr2d") == [1, 2]
    assert fixed_depths(study, "transunet") == [0, 1, 2]
    assert left_out(study) == ["unetr2d has no depth 0: left out"]


@pytest.mark.parametrize("start", ["inherit", "distil"])
def test_truncated_networks_start_from_the_trained_full_ones_weights(start, tiny_data_once, tmp_path, monkeypatch):
    import vitrim.training.distillation

    real, started, taught = vitrim.training.distillation.train_network, {}, set()

    def train(network, *arguments, extra_loss=None, **options):
        started[network.depth] = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        taught.add(extra_loss is not None)
        return real(network, *arguments, extra_loss=extra_loss, **options)

    monkeypatch.setattr(vitrim.training.distillation, "train_network", train)
    out = run(tmp_path, tiny_data_once, "--init", start, "--depths", "2", "--networks", "unetr2d")
    assert taught == {start == "distil"}
    full = package.load_model(next((out / "trials").glob("unetr2d-12-*")))
    for name, tensor in full.truncated(2).state_dict().items():
        assert torch.equal(tensor, started[2][name]), name
    assert pd.read_csv(out / "results.csv")["init"].tolist()[0] == "scratch"
    assert set(pd.read_csv(out / "results.csv")["init"][1:]) == {start}


def trial(**changes) -> Trial:
    content = {
        "network": NetworkConfig(name="transunet", num_classes=3), "blocks": 3, "seed": 0, "data": "d",
        "training": TrainConfig(steps=2), "split": Split(("a",), ("b",)), "empty_slices": True,
    }  # fmt: skip
    return Trial(**{**content, **changes})


@pytest.mark.parametrize(
    "changes",
    [{"training": TrainConfig(steps=2, workers=3)}, {"fold": 4}, {"split": Split(("a",), ("b",), ("c",))}],
    ids=["loaders", "the number of the fold", "cases that are kept out of it"],
)
def test_what_does_not_change_a_training_does_not_change_its_name(changes):
    assert trial(**changes).key == trial().key


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"split": Split(("b",), ("a",))},
        {"weights": "ViT: sha256 0123"},
        {"start": "inherit"},
        {"training": TrainConfig(steps=2, augment="light")},
        {"training": TrainConfig(steps=2, checkpoint="best")},
    ],
    ids=["seed", "split", "weights", "start", "augmentation", "checkpoint"],
)
def test_what_changes_a_training_changes_its_name(changes):
    assert trial(**changes).key != trial().key


def test_the_cases_that_choose_the_best_checkpoint_change_its_name():
    best = {"training": TrainConfig(steps=2, checkpoint="best")}
    names = {trial(**best, split=Split(("a",), ("b",), tuning)).key for tuning in (("c",), ("d",))}
    assert len(names) == 2


def test_a_file_of_weights_counts_by_its_content_not_by_its_path(tmp_path):
    from vitrim.models.pretrained import _say
    from vitrim.models.timm_weights import Source

    for name, content in (("a.npz", b"1"), ("b (2).npz", b"1"), ("c.npz", b"2")):
        (tmp_path / name).write_bytes(content)
    said = [
        origin_by_content(f"ViT: {_say(Source('n', tmp_path / name))}; CNN: random") for name in ("a.npz", "b (2).npz")
    ]
    assert said[0] == said[1]
    assert origin_by_content(f"ViT: {_say(Source('n', tmp_path / 'c.npz'))}; CNN: random") != said[0]


def test_another_logger_of_lightnings_is_told_every_loss(tiny_data_once, tmp_path):
    out = run(tmp_path, tiny_data_once, "--logger", "CSVLogger", "--networks", "unetr2d", "--depths", "1")
    folders = list((out / "trials").iterdir())
    assert len(folders) >= 2
    for folder in folders:
        (told,) = (out / "logs" / folder.name).rglob("metrics.csv")
        assert pd.read_csv(told)["loss"].tolist() == pytest.approx(
            pd.read_csv(folder / "history.csv")["loss"], abs=1e-5
        )


def test_mlflow_and_tensorboard_are_told_too(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    told = 0
    for name, module, pattern in (
        ("mlflow", "mlflow", "*/*/metrics/loss"),
        ("tensorboard", "tensorboard", "**/events.out.tfevents.*"),
    ):
        if importlib.util.find_spec(module) is None:
            continue
        logger = make_logger(name, tmp_path / name, "unetr2d-12-abc")
        logger.log_metrics({"loss": 0.25}, step=7)
        logger.finalize("success")
        (file,) = (tmp_path / name).glob(pattern)
        assert name == "tensorboard" or file.read_text().split()[1:] == ["0.25", "7"]
        told += 1
    if not told:
        pytest.skip("neither mlflow nor tensorboard is installed")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--logger", "NoSuchLogger"), "no logger 'NoSuchLogger'; choose from tensorboard, wandb"),
        (("--seeds", "0;1"), "--seeds: '0;1' is not a list"),
        (("--seeds", "1,1"), "contain a number twice"),
        (("--depths", "13"), "depths"),
        (("--networks", "cats2d"), "no 'cats2d'; it has unetr2d"),
        (("--init", "inherit", "--init", "distil"), "exclude each other"),
        (("--folds", "20"), "20 folds"),
        (("--devices", "3"), "multiple of 3"),
    ],
)
def test_an_impossible_option_is_refused_in_one_line(options, words, tiny_data_once, tmp_path, capsys):
    file = tiny_study(tmp_path / "tiny.yaml", networks={"unetr2d": {}}, **SHORT)
    assert vitrim("study", file, "--data", tiny_data_once, "--out", tmp_path / "out", *options) == 2
    error = capsys.readouterr().err.strip()
    assert words in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("text", "found"), [("0,1,5", [0, 1, 5]), ("0..3", [0, 1, 2, 3]), ("1, 3..4", [1, 3, 4])])
def test_numbers_are_read_as_lists_and_ranges(text, found):
    assert whole_numbers(text, "--seeds") == found


@pytest.mark.parametrize("text", ["", "a", "3..1", "1,,2", "-1"])
def test_what_is_no_list_of_numbers_is_refused(text):
    with pytest.raises(InputError, match="--seeds"):
        whole_numbers(text, "--seeds")


def test_a_missing_logger_library_is_named(monkeypatch):
    from lightning.pytorch import loggers

    class Absent(loggers.CSVLogger):
        def __init__(self, save_dir: str) -> None:
            raise ModuleNotFoundError("No module named 'tensorboard'")

    monkeypatch.setattr(loggers, "TensorBoardLogger", Absent)
    with pytest.raises(InputError, match="tensorboard"):
        make_logger("TensorBoardLogger", Path("logs"), "key")


@pytest.mark.parametrize(
    ("arguments", "ray"),
    [
        (["--ray", "demo"], "local"),
        (["demo", "--ray"], "local"),
        (["demo", "--ray", "--seed", "3"], "local"),
        (["demo", "--ray", "auto"], "auto"),
        (["demo", "--ray", "10.0.0.1:6379"], "10.0.0.1:6379"),
        (["demo", "--ray=head:6379"], "head:6379"),
        (["demo"], None),
    ],
)
def test_an_address_may_follow_ray_or_not(arguments, ray, tmp_path, monkeypatch):
    asked = []

    def run_study(study, source, out, reporter, **options):
        asked.append((study.name, options["ray"]))
        raise KeyboardInterrupt

    monkeypatch.setattr("vitrim.commands.study.run_study", run_study)
    assert vitrim("study", *arguments, "--out", tmp_path / "out") == 130
    assert asked == [("demo", ray)]
