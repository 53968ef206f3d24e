"""Configurations that would mislead later are refused when they are read, in one short line."""

from __future__ import annotations

import time

import pytest
import yaml

from vitrim.config.reading import load_study, parse_study
from vitrim.config.schema import StudyConfig
from vitrim.errors import ConfigurationError


def refused(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse_study(text, "study.yaml")
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 800
    return message


def study(**changes: object) -> str:
    """YAML of the demo with some values changed: `data__clip=[1, 0]`."""
    content = load_study("demo").model_dump(mode="json")
    for place, value in changes.items():
        *parents, key = place.split("__")
        here = content
        for name in parents:
            here = here[name]
        here[key] = value
    return yaml.safe_dump(content)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("data__clip", [275, -125]),
        ("data__clip", [0, 0]),
        ("data__clip", [0, float("inf")]),
        ("data__clip", [float("nan"), 1]),
        ("data__crop", [0, 0]),
        ("data__image_size", 16_000_000),
        ("data__phantom__spacing", [1, 0, 1]),
        ("data__phantom__spacing", [1, -2, 1]),
        ("data__phantom__noise", float("inf")),
        ("width", float("inf")),
        ("width", 1e9),
        ("seed", 2**32),
        ("seeds", [0, 2**32]),
        ("training__learning_rate", float("nan")),
        ("attention__threshold", float("inf")),
        ("margins", [float("nan")]),
    ],
)
def test_a_value_that_is_not_possible_names_its_key(place: str, value: object) -> None:
    assert place.split("__")[-1] in refused(study(**{place: value}))


@pytest.mark.parametrize("preset", ["demo", "ibsr18", "emidec", "synapse"])
def test_every_preset_is_possible(preset: str) -> None:
    assert isinstance(load_study(preset), StudyConfig)


def test_a_key_that_is_given_twice_is_refused() -> None:
    assert "the key 'seed' is given twice" in refused(study() + "seed: 3\n")


@pytest.mark.parametrize(
    "value", ["2001-99-99", "!!python/object:os.system x", "1" * 6000, "&a [*a]", "[" * 3000, "\x00"]
)
def test_yaml_that_python_cannot_make_is_refused(value: str) -> None:
    assert refused(study() + f"name2: {value}\n").startswith("study.yaml")


def test_a_value_is_never_printed_whole() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    begin = time.process_time()
    message = refused("\n".join(lines) + "\nname: *a8\ndata: {}\nnetworks: *a8\ntraining: {steps: *a8}\n")
    assert "name" in message
    assert time.process_time() - begin < 5
