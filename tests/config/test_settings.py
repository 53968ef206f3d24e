"""A preset as the base of a configuration, and `--set` on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.support import vitrim
from vitrim.config.reading import load_study, parse_study, presets, source_config, study_config
from vitrim.config.schema import StudyConfig
from vitrim.errors import ConfigurationError


def over(base: str, **changes: object) -> StudyConfig:
    return parse_study(yaml.safe_dump({"base": base, **changes}), "mine.yaml")


@pytest.mark.parametrize("name", presets())
def test_a_base_without_changes_is_the_preset(name: str) -> None:
    assert over(name) == load_study(name)


def test_keys_over_a_base_change_these_alone() -> None:
    base = load_study("synapse")
    mine = over("synapse", name="mine", data={"clip": [-100, 200]}, networks={"cats2d": {"backbone": "resnet34"}})
    assert (mine.name, mine.data.clip) == ("mine", (-100, 200))
    assert mine.networks["cats2d"].backbone == "resnet34"
    assert mine.networks["cats2d"].depths == base.networks["cats2d"].depths
    assert mine.data.model_copy(update={"clip": base.data.clip}) == base.data
    assert (list(mine.networks), mine.training) == (list(base.networks), base.training)


def test_null_takes_a_key_of_the_base_out() -> None:
    mine = over("emidec", networks={"cats2d": None}, data={"crop": None})
    assert list(mine.networks) == ["transunet", "unetr2d"]
    assert mine.data.crop is None


def test_one_of_two_keys_takes_the_place_of_the_other() -> None:
    assert (load_study("ibsr18").training.epochs, over("ibsr18", training={"steps": 5}).training.epochs) == (80, None)
    assert over("demo", vit="test_vit").size is None
    assert source_config("demo", ["training.epochs=2"]).training.steps is None


def test_an_unknown_base_is_refused_with_the_nearest_preset() -> None:
    with pytest.raises(ConfigurationError, match=r"base: 'ibsr' is unknown \(did you mean 'ibsr18'\?\)"):
        over("ibsr")
    with pytest.raises(ConfigurationError, match="base: None is unknown"):
        parse_study("base:\nname: x\n", "mine.yaml")


def test_a_base_does_not_make_an_endless_mapping_a_fault() -> None:
    with pytest.raises(ConfigurationError, match=r"mine\.yaml"):
        parse_study("base: demo\ndata: &a {phantom: *a}\n", "mine.yaml")


@pytest.mark.parametrize("source", ["ibsr18", load_study("ibsr18")], ids=["name", "configuration"])
def test_settings_change_keys_with_values_in_yaml(source: str | StudyConfig) -> None:
    study = source_config(
        source, ["training.steps=200", "data.clip=[-3, 5]", "networks.cats2d=null", "networks.unetr2d.depths=[1]"]
    )
    assert (study.training.steps, study.training.epochs, study.data.clip) == (200, None, (-3, 5))
    assert list(study.networks) == ["transunet", "unetr2d"]
    assert study.networks["unetr2d"].depths == [1]
    assert study.training.batch_size == load_study("ibsr18").training.batch_size


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("training.stepz=3", "unknown key 'training.stepz'; did you mean training.steps?"),
        ("steps=3", "unknown key 'steps'; did you mean training.steps?"),
        ("networks.transunet.depth=3", "did you mean networks.transunet.depths or"),
        ("colour=red", "unknown key 'colour'"),
        ("training.steps", "has no value: write KEY=VALUE"),
        ("training.steps=[", "'[' is not YAML"),
        ("training.steps=-1", "training.steps: Input should be greater than or equal to 1"),
        ("data.layout=ibsr", "did you mean 'ibsr18'"),
    ],
)
def test_a_setting_that_is_not_possible_is_refused_in_one_line(setting: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        load_study("demo", [setting])
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("two", [["seed=1", "seed=2"], ["training.steps=1", "training={steps: 2}"]])
def test_a_key_that_is_set_twice_is_refused(two: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="twice"):
        load_study("demo", two)


def test_options_win_over_settings() -> None:
    assert study_config("demo", seed=3, settings=["seed=2", "tries=0"]).seed == 3


def test_the_command_line_refuses_a_setting_before_anything_is_written(tmp_path: Path, capsys) -> None:
    assert vitrim("study", "demo", "--set", "trainig.steps=1", "--out", tmp_path / "out") == 2
    assert capsys.readouterr().err == "vitrim: --set: unknown key 'trainig.steps'; did you mean training.steps?\n"
    assert vitrim("train", "demo", "--set", "training.steps=x", "--out", tmp_path / "out") == 2
    assert "training.steps" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
