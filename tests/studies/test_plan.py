"""Which trainings are compared together, and which rules a study can propose by."""

from __future__ import annotations

import pytest

from vitrim.config.reading import changed, load_study
from vitrim.errors import ConfigurationError
from vitrim.studies.plan import RunKey, balanced


def keys(*pairs: tuple[int, int]) -> list[RunKey]:
    return [RunKey("transunet", seed, fold) for seed, fold in pairs]


@pytest.mark.parametrize(
    ("there", "kept"),
    [
        ([(0, 0), (0, 1), (1, 0), (1, 1)], [(0, 0), (0, 1), (1, 0), (1, 1)]),
        ([(0, 0), (0, 1), (1, 0)], [(0, 0), (0, 1)]),  # fold 1 of seed 1 failed
        ([(0, 0), (1, 1)], [(0, 0)]),  # no seed has every fold
        ([(0, 0), (1, 0)], [(0, 0), (1, 0)]),
        ([(2, 3)], [(2, 3)]),
    ],
)
def test_seeds_are_compared_on_the_same_cases_only(there: list[tuple[int, int]], kept: list[tuple[int, int]]) -> None:
    assert balanced(keys(*there)) == keys(*kept)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rule": "accuracy"}, "cannot propose"),
        ({"rule": "constant", "attention": {"forms": ["identity"]}}, "needs constant in attention.forms"),
        ({"training": {"nested": True}}, "leave it out of a study"),
        ({"rule": "nested", "training": {"devices": 2}}, "one device"),
        ({"rule": "exchang"}, "did you mean 'exchange'"),
    ],
)
def test_a_rule_that_cannot_propose_is_refused_before_anything_is_trained(changes: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        changed(load_study("demo"), **changes)
