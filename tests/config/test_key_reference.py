"""The JSON schema and docs/configuration.md say what the code checks."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.support import vitrim
from vitrim.config.key_reference import json_schema, markdown_page
from vitrim.config.reading import parse_study, presets
from vitrim.config.schema import StudyConfig
from vitrim.config.settings import dotted_keys
from vitrim.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[2]
STUDIES = {name: resources.files("vitrim") / "presets" / f"{name}.yaml" for name in presets()}
STUDIES |= {path.stem: path for path in (ROOT / "examples").glob("*.yaml")}


def accepts(content: object) -> bool:
    return jsonschema.Draft202012Validator(json_schema()).is_valid(content)


def accepted_by_the_code(content: object) -> bool:
    try:
        parse_study(yaml.safe_dump(content), "study.yaml")
    except ConfigurationError:
        return False
    return True


def described(schema: dict) -> Iterator[tuple[str, str]]:
    """Every key of a schema with its description."""
    for part in (schema, *schema["$defs"].values()):
        for name, field in part["properties"].items():
            yield name, field.get("description", "")


def test_the_committed_page_is_what_the_code_generates() -> None:
    """To generate it again: vitrim study schema --markdown > docs/configuration.md"""
    assert (ROOT / "docs/configuration.md").read_text(encoding="utf-8") == markdown_page()


def test_every_key_is_described_and_in_the_page() -> None:
    assert [name for name, text in described(json_schema()) if not text] == []
    page = markdown_page()
    for key in dotted_keys(StudyConfig):
        assert f"| `{key.rsplit('.', 1)[-1]}` |" in page or key.startswith("networks."), key


@pytest.mark.parametrize("name", STUDIES)
def test_the_schema_accepts_every_study_that_comes_with_the_package(name: str) -> None:
    assert accepts(yaml.safe_load(STUDIES[name].read_text(encoding="utf-8")))


GOOD = yaml.safe_load(STUDIES["demo"].read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "change",
    [
        ("colour", "red"),
        ("data.clp", [0, 1]),
        ("data.image_size", 100),
        ("data.image_size", [96, 96, 96]),
        ("data.layout", "ibsr"),
        ("data.axis", 3),
        ("training.steps", 0),
        ("training.learning_rate", 0),
        ("training.momentum", 0.9),
        ("training.augment", "ligth"),
        ("training.augment", [{"RandFlp": {}}]),
        ("training.augment", ["RandFlip"]),
        ("networks", {}),
        ("networks.unet", {}),
        ("networks.transunet.depth", [3]),
        ("data.phantom.kind", "heart"),
        ("name", "../elsewhere"),
    ],
)
def test_the_schema_refuses_what_the_code_refuses(change: tuple[str, object]) -> None:
    place, value = change
    content = copy.deepcopy(GOOD)
    *parents, key = place.split(".")
    here = content
    for name in parents:
        here = here[name]
    here[key] = value
    assert not accepted_by_the_code(content)
    assert not accepts(content)


@pytest.mark.parametrize(
    "content",
    [
        {"base": "ibsr18"},
        {"base": "ibsr18", "training": {"steps": 200}, "networks": {"cats2d": None}},
        {"base": "ibsr18", "training": {"augment": [{"RandFlip": {"prob": 0.5}}], "checkpoint": "best"}},
    ],
)
def test_the_schema_knows_a_base(content: dict) -> None:
    assert accepts(content)
    assert accepted_by_the_code(content)
    assert not accepts({**content, "base": "ibsr"})
    assert not accepts({key: value for key, value in content.items() if key != "base"})


def test_the_command_prints_the_schema_or_writes_it_to_a_new_file(tmp_path: Path, capsys) -> None:
    assert vitrim("study", "schema") == 0
    assert json.loads(capsys.readouterr().out) == json_schema()
    file = tmp_path / "schema.json"
    assert vitrim("study", "schema", "-o", file) == 0
    assert vitrim("study", "schema", "-o", file) == 0
    assert json.loads(file.read_text()) == json_schema()
    file.write_text("mine")
    assert vitrim("study", "schema", "-o", file) == 2
    assert file.read_text() == "mine"
