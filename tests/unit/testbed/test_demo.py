from __future__ import annotations

from testbed.demo import table

PHASE = {"sent": 812, "failed": 0, "p50_ms": 3.14159, "p99_ms": 12.0, "versions": {"1": 500, "2": 312}}


def test_the_table_has_a_row_a_step_in_columns_that_line_up() -> None:
    assert table([("deploy 1, basic", 31.42, {}), ("roll back", 4.0, PHASE)]) == [
        "step             seconds  requests  failed  p50 ms  p99 ms  versions that answered",
        "deploy 1, basic  31.4     -         -       -       -       -",
        "roll back        4.0      812       0       3.1     12.0    1 (500), 2 (312)",
    ]


def test_a_step_in_which_every_request_failed_has_no_times() -> None:
    phase = {"sent": 3, "failed": 3, "p50_ms": None, "p99_ms": None, "versions": {}}
    assert table([("deploy 2", 1.0, phase)])[1].split() == ["deploy", "2", "1.0", "3", "3", "-", "-", "-"]
