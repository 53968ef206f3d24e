"""A public TransUNet checkpoint, end to end: the import says once how images are prepared and which cases are whose."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import vitrim as package
from tests.models.test_transunet_release import release_state
from tests.support import tiny_study, vitrim
from vitrim.commands import provenance
from vitrim.commands.provenance import cases_for, read_provenance, with_split
from vitrim.config.reading import load_study
from vitrim.config.schema import PhantomConfig
from vitrim.data.phantoms.make import write_phantom
from vitrim.data.preprocessing import Preprocessing
from vitrim.data.readers import read_cases
from vitrim.data.split import split_cases
from vitrim.data.volumes import load_volume
from vitrim.errors import DataError, WeightsError
from vitrim.models.checkpoint import load_model


def release_file(path: Path, classes: int, size: int = 32) -> Path:
    """A file as the public code saves it. No class wins everywhere."""
    torch.manual_seed(0)
    options = {"depth": 2, "size": "micro", "stem": "release", "in_chans": 1, "image_size": size}
    network = package.create_model("transunet", num_classes=classes, **options).eval()
    with torch.no_grad():
        logits = network(torch.rand(4, 1, size, size))
        network.get_parameter("head.bias").sub_(logits.mean((0, 2, 3)))
    torch.save(release_state(network), path)
    return path


@pytest.fixture(scope="module")
def synapse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom in the form of the release: npz slices to train on, h5 volumes to test on, and their lists."""
    folder = tmp_path_factory.mktemp("synapse") / "data"
    return write_phantom(PhantomConfig(kind="abdomen", cases=5, shape=(48, 48, 4)), folder, "synapse")


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    package.import_transunet(release_file(tmp_path / "release.pth", 9), tmp_path / "imported")
    return tmp_path / "imported"


def test_on_the_releases_own_data_nothing_more_need_be_said(imported, synapse, tmp_path, capsys):
    cases = read_cases(load_study("synapse").data, synapse)
    train, held_out = ({case.id for case in cases.cases if case.split == part} for part in ("train", "validation"))
    data = ("--data", synapse)
    assert vitrim("evaluate", imported, *data, "-o", tmp_path / "before") == 0
    table = pd.read_csv(tmp_path / "before/cases.csv")
    assert (set(table["case"]), set(table["role"])) == (held_out, {"validation"})
    recover = ("--recover", "finetune", "--steps", 1)
    assert vitrim("compress", imported, *data, "--depth", 1, *recover, "-o", tmp_path / "small") == 0
    split = json.loads((tmp_path / "small/recovery.json").read_text())["split"]
    assert (set(split["train"]), set(split["validation"])) == (train, held_out)
    capsys.readouterr()
    assert vitrim("evaluate", tmp_path / "small", *data, "--cases", "all", "-o", tmp_path / "after") == 0
    assert f"trained on {len(train)} of these 5 cases" in capsys.readouterr().out


@pytest.mark.slow
def test_attention_is_measured_on_the_cases_that_it_learned(imported, synapse, tmp_path):
    assert vitrim("attention", imported, "--data", synapse, "--slices", 1, "-o", tmp_path / "found") == 0
    rule = json.loads((tmp_path / "found/attention_rule.json").read_text())
    cases = read_cases(load_study("synapse").data, synapse)
    assert set(rule["cases"]) == {case.id for case in cases.cases if case.split == "train"}


def test_slices_that_are_scaled_already_are_not_scaled_again(imported, synapse):
    """The public code scales CT to 0 to 1, and its own files hold the result."""
    network = load_model(imported)
    config, cases = cases_for(imported, network, read_provenance(imported), synapse, None)
    prepared = Preprocessing.from_config(config).apply(load_volume(cases.cases[0], cases))
    assert np.ptp(prepared.images) > 0.5
    with pytest.raises(DataError, match="clipped and scaled to 0 to 1 already: set normalize: none"):
        read_cases(load_study("transunet-release").data, synapse)


def test_the_study_of_the_import_keeps_its_held_out_cases_apart(tiny_data_once, tmp_path, capsys):
    study = tiny_study(tmp_path / "tiny.yaml", data={"image_size": 32, "validation": 3}, seed=5)
    path, imported, data = release_file(tmp_path / "release.pth", 3), tmp_path / "imported", ("--data", tiny_data_once)
    assert vitrim("import", "transunet", path, "-o", imported, "--study", study) == 0
    assert "taken is the public code's way" not in capsys.readouterr().out
    config = load_study(study)
    expected = split_cases(read_cases(config.data, tiny_data_once), config.data, 5)

    before = read_provenance(imported)
    assert (
        with_split(before, read_cases(config.data, tiny_data_once)).roles == {}
    )  # a draw does not say what it learned

    recover = ("--depth", 1, "--recover", "finetune", "--steps", 1)
    assert vitrim("compress", imported, *data, *recover, "-o", tmp_path / "small") == 0
    split = json.loads((tmp_path / "small/recovery.json").read_text())["split"]
    assert (tuple(split["train"]), tuple(split["validation"])) == (expected.train, expected.validation)
    assert read_provenance(tmp_path / "small").split == expected


def test_a_split_file_says_which_cases_it_learned(tiny_data_once, tmp_path, capsys):
    names = [f"case_{n:03d}" for n in range(8)]
    (tmp_path / "split.json").write_text(json.dumps({"train": names[:6], "validation": names[6:]}))
    data = {"image_size": 32, "split_file": str(tmp_path / "split.json")}
    study = tiny_study(tmp_path / "tiny.yaml", data=data)
    package.import_transunet(release_file(tmp_path / "release.pth", 3), tmp_path / "imported", study=study)
    (tmp_path / "split.json").unlink()  # its content is stored
    options = ("--data", tiny_data_once, "--cases", "all", "-o", tmp_path / "found")
    assert vitrim("evaluate", tmp_path / "imported", *options) == 0
    assert "trained on 6 of these 8 cases" in capsys.readouterr().out


def test_a_damaged_record_of_the_import_is_named(imported):
    (imported / provenance.IMPORT).write_text('{"seed": "five", "split": null}')
    with pytest.raises(WeightsError, match=r"import\.json does not hold what vitrim writes there"):
        read_provenance(imported)


def test_without_a_preparation_no_command_guesses(imported, tiny_data_once, tmp_path, capsys):
    (imported / "preparation.json").unlink()
    data, out = ("--data", tiny_data_once), ("-o", tmp_path / "out")
    for arguments in (
        ("evaluate", imported, *data, *out),
        ("attention", imported, *data, *out),
        ("compress", imported, *data, "--depth", "auto", "--steps", 1, *out),
        ("predict", imported, tiny_data_once / "imagesTr", "-o", tmp_path / "out"),
        ("export", imported, "-o", tmp_path / "out.onnx"),
    ):
        assert vitrim(*arguments) == 2
        assert "does not say how its images are prepared" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
