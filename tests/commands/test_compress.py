"""Truncating a checkpoint, to a depth or as a decision says."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest
import torch

import vitrim as package
from tests.support import make_checkpoint, vitrim, write_tiny_data
from vitrim.compression import candidates
from vitrim.config.reading import load_study
from vitrim.data.readers import read_cases
from vitrim.data.split import study_splits


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    network = package.create_model("transunet", num_classes=3, image_size=64, size="micro", width=0.25)
    package.save_model(network, tmp_path / "network")
    return tmp_path / "network"


@pytest.fixture
def trained(tmp_path):
    """A checkpoint with what a study leaves beside it: it was trained on six of the eight tiny cases."""
    split = {"train": [f"case_{n:03d}" for n in range(6)], "validation": ["case_006", "case_007"]}
    return make_checkpoint(tmp_path / "trained", split=split)


@pytest.fixture
def decision(checkpoint, tmp_path):
    network = package.load_model(checkpoint)
    profile = package.profile_attention(network, torch.randn(6, 1, 64, 64))
    package.decide_depth(profile).save(tmp_path / "decision.json")
    return tmp_path / "decision.json"


def test_the_small_network_keeps_its_weights_and_its_preparation(tmp_path, capsys):
    checkpoint = make_checkpoint(tmp_path / "other")
    assert vitrim("compress", checkpoint, "--depth", 3, "--out", tmp_path / "small") == 0
    small, full = package.load_model(tmp_path / "small"), package.load_model(checkpoint)
    assert small.depth == 3
    for name, tensor in small.state_dict().items():
        assert torch.equal(tensor, full.state_dict()[name]), name
    assert (tmp_path / "small/preparation.json").is_file()
    assert "12 -> 3 blocks" in capsys.readouterr().out


def test_an_edited_decision_is_obeyed(checkpoint, decision, tmp_path):
    content = json.loads(decision.read_text())
    decision.write_text(json.dumps({**content, "depth": 5}))
    assert vitrim("compress", checkpoint, "--decision", decision, "--out", tmp_path / "small") == 0
    assert package.load_model(tmp_path / "small").depth == 5


@pytest.mark.parametrize(
    "options", [("--depth", 13), (), ("--decision", "none.json"), ("--depth", 3, "--decision", "x")]
)
def test_an_impossible_depth_is_refused_and_leaves_nothing(options, checkpoint, tmp_path, capsys):
    assert vitrim("compress", checkpoint, "--out", tmp_path / "small", *options) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "small").exists()


def test_a_decision_about_another_network_is_refused(checkpoint, decision, tmp_path, capsys):
    assert vitrim("compress", checkpoint, "--depth", 4, "--out", tmp_path / "four") == 0
    assert vitrim("compress", tmp_path / "four", "--decision", decision, "--out", tmp_path / "small") == 2
    assert "12 blocks" in capsys.readouterr().err


def test_the_procedure_decides_and_only_held_out_cases_confirm(tmp_path, capsys, monkeypatch):
    """It looks at training cases, chooses on tuning cases, and confirms on held-out ones; each group keeps its task."""
    names = [f"case_{n:03d}" for n in range(24)]
    split = {"train": names[:8], "validation": names[8:16], "tuning": names[16:]}
    trained = make_checkpoint(tmp_path / "trained", split=split, depth=4)
    data = write_tiny_data(tmp_path / "data", cases=24, slices=2)
    monkeypatch.setattr("vitrim.compression.depth_procedure.DICE_FLOOR", 0.0)  # the network is untrained
    out = tmp_path / "small"
    assert vitrim("compress", trained, "--depth", "auto", "--data", data, "--out", out, "--steps", 1) == 0
    rule = json.loads((out / "attention/attention_rule.json").read_text())
    assert set(rule["cases"]) == set(names[:8])
    assert set(pd.read_csv(out / "attention/exchange.csv")["case"]) == set(names[16:])
    decision = json.loads((out / "decision.json").read_text())
    summary = json.loads((out / "compression.json").read_text())
    assert package.load_model(out).depth == decision["depth"] == summary["by_procedure"]["depth"]
    assert decision["tried"]
    assert [result["cases"] for result in decision["tried"]] == [8] * len(decision["tried"])
    said = capsys.readouterr().out
    if decision["confirmed"] is None:
        assert decision["verdict"] == "not shown"
    else:
        assert (decision["judged_on"], decision["confirmed"]["cases"]) == ("held-out", 8)
        assert "on held-out cases" in said
    assert decision["in_words"] in said
    copy = tmp_path / "same"
    assert vitrim("compress", trained, "--decision", out / "decision.json", "--out", copy) == 0
    assert package.load_model(copy).depth == decision["depth"]


def test_a_network_that_segments_nothing_is_not_made_smaller(tmp_path, capsys):
    names = [f"case_{n:03d}" for n in range(24)]
    split = {"train": names[:8], "validation": names[8:16], "tuning": names[16:]}
    trained = make_checkpoint(tmp_path / "trained", split=split, depth=4)
    recipe = {name: (trained / name).read_text() for name in ("preparation.json", "trial.json")}
    network = package.load_model(trained)
    with torch.no_grad():
        network.get_parameter("head.bias")[0] += 1000  # everything is background
    package.save_model(network, trained)
    for name, text in recipe.items():
        (trained / name).write_text(text)
    data = write_tiny_data(tmp_path / "data", cases=24, slices=2)
    assert vitrim("compress", trained, "--depth", "auto", "--data", data, "--out", tmp_path / "small") == 0
    said = capsys.readouterr().out
    assert "Cannot tell how many blocks TransUNet needs: the average Dice of the full network is 0.000" in said
    assert package.load_model(tmp_path / "small").depth == 4


@pytest.mark.parametrize("recovery", ["finetune", "distil"])
def test_recovery_starts_from_the_surviving_weights_and_changes_them(recovery, trained, tiny_data_once, tmp_path):
    options = ("--depth", 2, "--data", tiny_data_once, "--recover", recovery, "--steps", 3)
    assert vitrim("compress", trained, *options, "--out", tmp_path / "small") == 0
    full, small = package.load_model(trained).state_dict(), package.load_model(tmp_path / "small").state_dict()
    weights = [name for name in small if name.endswith("weight")]
    apart = max(float((small[name] - full[name]).abs().max()) for name in weights)
    assert 0 < apart < 0.1  # three steps of a learning rate of 1e-3
    account = json.loads((tmp_path / "small/compression.json").read_text())
    assert account["recovery_steps"] == 3
    assert len((tmp_path / "small/recovery.csv").read_text().splitlines()) == 4


def test_accuracy_decides_by_bisection_beside_attention(trained, tiny_data_once, tmp_path, capsys):
    """The depth that is chosen is the smallest of those tried that were good enough."""
    more = write_tiny_data(tmp_path / "more", cases=16)
    options = ("--depth", "auto", "--tolerance", "99%", "--data", more, "--out", tmp_path / "small")
    assert vitrim("compress", trained, *options) == 0
    account = json.loads((tmp_path / "small/compression.json").read_text())
    tried = account["by_accuracy"]["tried"]
    assert tried[0]["depth"] == 5
    assert account["by_accuracy"]["cases"] == 8
    smallest = min([entry["depth"] for entry in tried if entry["enough"]], default=12)
    assert package.load_model(tmp_path / "small").depth == account["by_accuracy"]["depth"] == smallest
    said = capsys.readouterr().out
    assert "by attention: " in said
    assert "by accuracy: " in said
    page = (tmp_path / "small/compression.md").read_text()
    for way in ("attention", "accuracy"):
        assert f"| by {way} | {account[f'by_{way}']['depth']} |" in page


def test_cases_kept_for_tuning_decide_and_take_no_part_in_recovery(tmp_path, capsys, monkeypatch):
    """They come before others that the network has not seen, and stay the same for every later choice."""
    names = [f"case_{n:03d}" for n in range(17)]
    split = {"train": names[:5], "validation": names[5:7], "tuning": names[9:]}
    trained = make_checkpoint(tmp_path / "tuned", split=split)
    data = write_tiny_data(tmp_path / "more", cases=17)
    options = ("--depth", "auto", "--tolerance", "99%", "--recover", "finetune", "--steps", 1, "--data", data)
    learned, real = [], candidates.recover
    monkeypatch.setattr(
        candidates, "recover", lambda net, slices, *a, **k: learned.append(slices) or real(net, slices, *a, **k)
    )
    assert vitrim("compress", trained, *options, "--out", tmp_path / "small") == 0
    assert learned
    assert {case for slices in learned for case, _ in slices.index} == set(names[:5])
    assert "accuracy is measured on 8 cases kept out of the full network's training" in capsys.readouterr().out
    account = json.loads((tmp_path / "small/compression.json").read_text())
    assert account["by_accuracy"]["cases"] == 8
    decision = json.loads((tmp_path / "small/attention/attention_rule.json").read_text())
    assert set(decision["cases"]) == set(names[:5])
    assert vitrim("evaluate", tmp_path / "small", "--cases", "tuning", "--data", data, "--out", tmp_path / "found") == 0
    cases = pd.read_csv(tmp_path / "found/cases.csv")
    assert set(cases["case"]) == set(names[9:])
    assert set(cases["role"]) == {"tuning"}


def test_a_network_trained_on_more_machines_is_recovered_on_one(tiny_data_once, tmp_path):
    names = [f"case_{n:03d}" for n in range(8)]
    trained = make_checkpoint(tmp_path / "large", split={"train": names[:5], "validation": names[5:]})
    trial = json.loads((trained / "trial.json").read_text())
    trial["training"] |= {"device": "gpu", "devices": 4, "nodes": 2}
    (trained / "trial.json").write_text(json.dumps(trial))
    options = ("--depth", 3, "--recover", "finetune", "--data", tiny_data_once, "--out", tmp_path / "small")
    assert vitrim("compress", trained, *options) == 0
    assert package.load_model(tmp_path / "small").depth == 3


def test_accuracy_needs_enough_cases_and_says_so_before_anything_is_computed(tmp_path, capsys):
    few = write_tiny_data(tmp_path / "few", cases=5)
    options = ("--depth", "auto", "--tolerance", "1%", "--data", few, "--out", tmp_path / "small", "--recover", "none")
    assert vitrim("compress", make_checkpoint(tmp_path / "imported"), *options) == 2
    said = capsys.readouterr()
    assert "5 with labels, asked for 8 to validate and at least 1 to train" in said.err
    assert "attention" not in said.out
    assert not (tmp_path / "small").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--depth", "auto"), "--data"),
        (("--depth", "some"), "a number of blocks or auto"),
        (("--depth", 3, "--tolerance", "1%"), "--depth auto"),
        (("--depth", 3, "--recover", "magic"), "choose from none, finetune, distil"),
        (("--depth", 3, "--recover", "distil"), "--data"),
        (("--depth", 3, "--epochs", 2), "--recover"),
        (("--depth", "auto", "--tolerance", "150%"), "share of the Dice"),
        (("--depth", 3, "--blocks", "last"), "choose from first, influence"),
    ],
)
def test_options_that_do_not_go_together_are_said_in_one_line(options, message, checkpoint, tmp_path, capsys):
    assert vitrim("compress", checkpoint, "--out", tmp_path / "small", *options) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "small").exists()


def test_influence_keeps_other_blocks_than_the_first(trained, tiny_data_once, tmp_path, capsys):
    network = package.load_model(trained)
    with torch.no_grad():  # blocks 1 and 2 hand their tokens on
        for block in network.blocks[:2]:
            for layer in (block.attn.proj, block.mlp.fc2):
                layer.weight.zero_()
                layer.bias.zero_()
    package.save_model(network, tmp_path / "idle")
    for name in ("preparation.json", "trial.json"):
        shutil.copyfile(trained / name, tmp_path / "idle" / name)
    options = ("--depth", 10, "--blocks", "influence", "--data", tiny_data_once, "--out", tmp_path / "small")
    assert vitrim("compress", tmp_path / "idle", *options) == 0
    assert json.loads((tmp_path / "small/compression.json").read_text())["kept"] == list(range(3, 13))
    assert "kept by influence: 3, 4" in capsys.readouterr().out


def test_recovery_of_an_imported_network_honours_the_study_and_evaluate_knows_its_cases(tmp_path, capsys):
    write_tiny_data(tmp_path / "data")
    imported = make_checkpoint(tmp_path / "imported")
    (imported / "preparation.json").unlink()
    study = tmp_path / "study.yaml"
    study.write_text(
        "name: s\ndata: {image_size: 32, validation: 3}\nnetworks: {transunet: {}}\nseed: 5\n"
        "training: {steps: 2, batch_size: 4}"
    )
    data = ("--data", tmp_path / "data")
    more = ("--recover", "finetune", "--steps", 2)
    assert vitrim("compress", imported, "--depth", 1, "--out", tmp_path / "no", *data, *more) == 2
    assert "--study" in capsys.readouterr().err
    assert vitrim("compress", imported, "--depth", 1, "--out", tmp_path / "small", *data, *more, "--study", study) == 0
    record = json.loads((tmp_path / "small" / "recovery.json").read_text())["split"]
    cases = load_study(study)
    expected = study_splits(read_cases(cases.data, tmp_path / "data"), cases)[0]
    assert (record["train"], record["validation"]) == (list(expected.train), list(expected.validation))
    capsys.readouterr()
    assert vitrim("evaluate", tmp_path / "small", *data, "--out", tmp_path / "held out") == 0  # prepared as was said
    table = pd.read_csv(tmp_path / "held out" / "cases.csv")
    assert set(table["case"]) == set(expected.validation)
    assert set(table["role"]) == {"validation"}
    assert vitrim("evaluate", tmp_path / "small", *data, "--cases", "all", "--out", tmp_path / "all") == 0
    assert f"trained on {len(expected.train)} of these 8 cases" in capsys.readouterr().out
