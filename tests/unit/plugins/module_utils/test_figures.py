# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counters of a window: read out of what servers expose, and subtracted."""

from __future__ import annotations

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils._figures import (
    Balanced,
    Served,
    read_exposition,
    read_pool,
    side,
    why_stop,
)

EXPOSITION = r"""# HELP model_server_requests_total Requests answered
model_server_requests_total{route="/predict",status="200"} 9.0
model_server_request_seconds_bucket{le="0.01",route="/predict"} 5.0
model_server_request_seconds_bucket{le="+Inf",route="/predict"} 7.0
model_server_request_seconds_bucket{le="0.01",route="/v2/models/tumour/infer"} 1.0
model_server_request_seconds_bucket{le="+Inf",route="/v2/models/tumour/infer"} 2.0
model_server_request_seconds_bucket{le="+Inf",route="/v2/health/ready"} 900.0
model_server_rows_total 18.0
model_server_predictions_total{class="a \"b\", c",output="0"} 12.0
model_server_predictions_total{class="d",output="0"} 6.0
model_server_predictions_total{class="d",output="1"} 99.0
"""


def test_only_requests_for_predictions_are_read_and_only_the_first_output() -> None:
    found = read_exposition(EXPOSITION)
    assert found == Served({"0.01": 6.0, "+Inf": 9.0}, {'a "b", c': 12.0, "d": 6.0}, 18.0)


def test_predictions_count_a_request_once_however_many_rows_it_has() -> None:
    found = side(Balanced(9, 1), [read_exposition(EXPOSITION)])
    assert found["predictions"] == {'a "b", c': 6, "d": 3}
    assert (found["requests"], found["errors"], found["latency"]) == (9, 1, {"0.01": 6, "+Inf": 9})


def test_a_counter_that_began_anew_counts_from_there() -> None:
    before, after = Served({"+Inf": 90.0}, {"1": 50.0}, 90.0), Served({"+Inf": 7.0}, {"1": 4.0, "2": 3.0}, 7.0)
    assert after.since(before) == after
    assert after.since(Served({"+Inf": 5.0}, {"1": 4.0}, 5.0)) == Served({"+Inf": 2.0}, {"1": 0.0, "2": 3.0}, 2.0)
    assert Balanced(5, 1).since(Balanced(900, 2)) == Balanced(5, 1)


def test_a_pools_errors_are_its_answers_of_4xx_and_5xx() -> None:
    row = {"hrsp_2xx": "90", "hrsp_3xx": "", "hrsp_4xx": "3", "hrsp_5xx": "7", "hrsp_other": "0"}
    assert read_pool(row) == Balanced(100, 10)


@pytest.mark.parametrize(
    ("canary", "baseline", "stops"),
    [
        ((9, 9), (100, 0), False),
        ((10, 10), (100, 0), True),
        ((40, 19), (100, 0), False),
        ((40, 20), (100, 0), True),
        ((40, 20), (0, 0), True),
        ((40, 20), (100, 30), False),
    ],
)
def test_a_canary_that_fails_at_half_of_its_requests_is_stopped_at_once(
    canary: tuple[int, int], baseline: tuple[int, int], stops: bool
) -> None:
    assert bool(why_stop(Balanced(*canary), Balanced(*baseline))) == stops
