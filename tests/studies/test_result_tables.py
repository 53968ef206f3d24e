"""The verdicts of a table of results."""

from __future__ import annotations

import pandas as pd

from vitrim.studies.result_columns import sequenced

GOOD, BAD, OPEN = "not worse", "worse", "undecided"


def test_verdicts_stop_at_the_first_failure_but_the_decided_depth_is_tested_once() -> None:
    rows = [
        ("full", 12, None),
        ("tried", 4, BAD),
        ("fixed", 3, GOOD),
        ("decided+fixed", 2, GOOD),
        ("fixed", 1, BAD),
    ]
    table = pd.DataFrame(rows, columns=["role", "blocks", "verdict_5"]).assign(network="cats2d")
    assert sequenced(table)["verdict_5"].tolist()[1:] == [BAD, OPEN, GOOD, BAD]
