"""Splits into training, validation and tuning cases."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrim.config.schema import DataConfig
from vitrim.data.cases import Case, CaseSet
from vitrim.data.split import Split, split_cases
from vitrim.errors import InputError


def cases(count: int, visits: int = 1, unlabelled: int = 0) -> CaseSet:
    """`count` patients with `visits` cases each; the first `unlabelled` cases have no label."""
    found = []
    for n in range(count * visits):
        label = Path(f"{n}.nii") if n >= unlabelled else None
        found.append(Case(f"case{n:02d}", (Path(f"{n}i.nii"),), label, patient=f"patient{n // visits}"))
    return CaseSet("decathlon", Path("set"), tuple(found), {0: "background", 1: "organ"}, {0: 0, 1: 1})


def test_a_share_of_the_cases_is_held_out() -> None:
    split = split_cases(cases(10), DataConfig(validation=0.2), seed=0)
    assert len(split.validation) == 2
    assert sorted(split.train + split.validation) == list(cases(10).ids)


def test_a_number_of_cases_is_held_out_and_a_number_trained_on() -> None:
    split = split_cases(cases(18), DataConfig(train=10, validation=5), seed=0)
    assert (len(split.train), len(split.validation)) == (10, 5)
    assert not set(split.train) & set(split.validation)


def test_the_seed_decides_the_draw() -> None:
    config = DataConfig(validation=5)
    assert split_cases(cases(20), config, seed=1) == split_cases(cases(20), config, seed=1)
    assert split_cases(cases(20), config, seed=1) != split_cases(cases(20), config, seed=2)


@pytest.mark.parametrize("seed", range(5))
def test_a_patient_is_never_on_both_sides(seed: int) -> None:
    case_set = cases(8, visits=3)
    split = split_cases(case_set, DataConfig(validation=0.25), seed)
    sides = [{case_set.case(id).patient for id in ids} for ids in (split.train, split.validation)]
    assert not sides[0] & sides[1]
    assert len(split.validation) == 6


def test_cases_without_label_take_no_part() -> None:
    split = split_cases(cases(10, unlabelled=4), DataConfig(validation=2), seed=0)
    assert sorted(split.train + split.validation) == [f"case{n:02d}" for n in range(4, 10)]


def test_too_few_cases_are_refused() -> None:
    with pytest.raises(InputError, match="too few cases"):
        split_cases(cases(2), DataConfig(validation=2), seed=0)
    with pytest.raises(InputError, match="too few cases"):
        split_cases(cases(10), DataConfig(train=8, validation=5), seed=0)
    with pytest.raises(InputError, match="too few cases"):
        split_cases(cases(10, unlabelled=10), DataConfig(), seed=0)


def test_a_split_survives_its_file(tmp_path: Path) -> None:
    split = Split(("a", "b"), ("ü c",))
    split.save(tmp_path / "split.json")
    assert Split.load(tmp_path / "split.json") == split


def test_a_given_split_is_used_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"train": ["case03", "case01"], "validation": ["case00"]}), encoding="utf-8")
    split = split_cases(cases(10), DataConfig(split_file=path), seed=0)
    assert split == Split(("case03", "case01"), ("case00",))


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        (["case00"], ["case99"], "'case99' which does not exist"),
        (["case02", "case04"], ["case02"], "'case02' twice"),
        (["case02"], ["case03"], "'patient1' in training and in validation"),
        (["case02"], ["case00"], "'case00' which has no label"),
        ([], ["case02"], "needs at least one case"),
        ("case00", ["case02"], "not a split"),
    ],
)
def test_a_given_split_that_cannot_be_is_refused(
    tmp_path: Path, train: object, validation: object, message: str
) -> None:
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"train": train, "validation": validation}), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        split_cases(cases(5, visits=2, unlabelled=1), DataConfig(split_file=path), seed=0)


@pytest.mark.parametrize("visits", [1, 2])
def test_every_case_is_held_out_in_one_fold(visits: int) -> None:
    case_set = cases(7, visits=visits)
    held_out: list[str] = []
    for fold in range(3):
        split = split_cases(case_set, DataConfig(folds=3, fold=fold), seed=5)
        patients = [{case_set.case(id).patient for id in ids} for ids in (split.train, split.validation)]
        assert not patients[0] & patients[1]
        assert len(split.train) + len(split.validation) == 7 * visits
        held_out.extend(split.validation)
    assert sorted(held_out) == list(case_set.ids)


def test_more_folds_than_patients_are_refused() -> None:
    with pytest.raises(InputError, match="2 patients with labels for 3 folds"):
        split_cases(cases(2, visits=5), DataConfig(folds=3), seed=0)


def test_nnunets_list_of_folds_is_a_split_file(tmp_path: Path) -> None:
    path = tmp_path / "splits_final.json"
    folds = [{"train": ["case01"], "val": ["case02"]}, {"train": ["case02"], "val": ["case01"]}]
    path.write_text(json.dumps(folds), encoding="utf-8")
    split = split_cases(cases(5), DataConfig(split_file=path, fold=1), seed=0)
    assert split == Split(("case02",), ("case01",))
    with pytest.raises(InputError, match="there is no fold 2"):
        split_cases(cases(5), DataConfig(split_file=path, fold=2), seed=0)


@settings(max_examples=100, deadline=None)
@given(
    patients=st.integers(8, 30),
    visits=st.integers(1, 3),
    tuning=st.integers(1, 3) | st.floats(0.01, 0.2),
    folds=st.none() | st.integers(2, 5),
    given_split=st.booleans(),
    seed=st.integers(0, 99),
)
def test_tuning_cases_are_taken_by_patient_from_those_that_are_not_held_out(
    patients: int, visits: int, tuning: int | float, folds: int | None, given_split: bool, seed: int
) -> None:
    """With tuning, the validation cases stay the same, and every case is in exactly one part."""
    case_set = cases(patients, visits=visits)
    if given_split and folds is None:
        marked = (replace(case, split="validation" if n < visits else "train") for n, case in enumerate(case_set.cases))
        case_set = replace(case_set, cases=tuple(marked))
    config = DataConfig(validation=0.2, folds=folds, tuning=0)
    without = split_cases(case_set, config, seed)
    split = split_cases(case_set, config.model_copy(update={"tuning": tuning}), seed)
    assert split.validation == without.validation
    assert without.tuning == ()
    assert sorted(split.ids) == list(case_set.ids)
    wanted = tuning if isinstance(tuning, int) else max(1, round(tuning * len(case_set.ids)))
    assert wanted <= len(split.tuning) < wanted + visits
    assert split.train
    sides = [{case_set.case(id).patient for id in ids} for ids in (split.train, split.validation, split.tuning)]
    assert sum(map(len, sides)) == patients


@pytest.mark.parametrize(
    ("count", "options", "tuning"),
    [
        (40, {"validation": 8}, 10),
        (200, {"validation": 40}, 20),
        (30, {"validation": 8}, 0),  # ten would be more than a third of the others
        (40, {"validation": 8, "train": 25}, 0),
        (40, {"folds": 5}, 10),
        (40, {"validation": 8, "tuning": 0}, 0),
    ],
)
def test_by_default_ten_cases_or_a_tenth_are_set_aside_where_enough_are_left(
    count: int, options: dict[str, object], tuning: int
) -> None:
    config = DataConfig.model_validate(options)
    assert len(split_cases(cases(count), config, seed=0).tuning) == tuning


def test_tuning_leaves_enough_to_train_on() -> None:
    with pytest.raises(InputError, match="asked for 2 to validate, 8 to tune and at least 1 to train"):
        split_cases(cases(10), DataConfig(validation=2, tuning=8), seed=0)
    with pytest.raises(InputError, match="asked for 2 to validate, 3 to tune and 6 to train"):
        split_cases(cases(10), DataConfig(validation=2, tuning=3, train=6), seed=0)
    with pytest.raises(InputError, match="5 are not held out, asked for 5 to tune"):
        split_cases(cases(10), DataConfig(folds=2, tuning=5), seed=0)


def test_a_split_file_may_name_tuning_cases_which_come_before_a_draw(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    content = {"train": ["case03", "case01", "case04"], "validation": ["case00"]}
    path.write_text(json.dumps({**content, "tuning": ["case02"]}), encoding="utf-8")
    expected = Split(("case03", "case01", "case04"), ("case00",), ("case02",))
    assert split_cases(cases(5), DataConfig(split_file=path), seed=0) == expected
    assert split_cases(cases(5), DataConfig(split_file=path, tuning=2), seed=0) == expected
    expected.save(path)
    assert Split.load(path) == expected
    path.write_text(json.dumps(content), encoding="utf-8")
    drawn = split_cases(cases(5), DataConfig(split_file=path, tuning=1), seed=0)
    assert (len(drawn.train), drawn.validation, len(drawn.tuning)) == (2, ("case00",), 1)


def test_a_split_without_tuning_is_written_as_before(tmp_path: Path) -> None:
    Split(("a",), ("b",)).save(tmp_path / "split.json")
    assert json.loads((tmp_path / "split.json").read_text(encoding="utf-8")) == {"train": ["a"], "validation": ["b"]}


@pytest.mark.parametrize(
    ("tuning", "message"),
    [
        (["case02"], "'case02' twice"),
        (["case03"], "'patient1' in training and in tuning"),
        (["case99"], "'case99' which does not exist"),
        ("case04", "not a split"),
    ],
)
def test_tuning_cases_that_cannot_be_are_refused(tmp_path: Path, tuning: object, message: str) -> None:
    path = tmp_path / "split.json"
    content = {"train": ["case02"], "validation": ["case04"], "tuning": tuning}
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        split_cases(cases(5, visits=2), DataConfig(split_file=path), seed=0)


def test_what_the_data_set_says_comes_before_a_draw() -> None:
    case_set = cases(3)
    marked = tuple(
        replace(case, split=side) for case, side in zip(case_set.cases, ("train", "validation", "train"), strict=True)
    )
    split = split_cases(replace(case_set, cases=marked), DataConfig(validation=2), seed=0)
    assert split == Split(("case00", "case02"), ("case01",))
