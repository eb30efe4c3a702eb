# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``/predict``: rows or records in, predictions out. Its errors are problem documents (RFC 9457)."""

from __future__ import annotations

import msgspec

from model_server.scoring.decode import decoder
from model_server.scoring.encode import encode
from model_server.web.protocol import Answer, Ask, Failure, Protocol, Route, Served


def routes(served: Served) -> list[Route]:
    decode, score = decoder(served.scorer.contract), served.score

    def answer(ask: Ask) -> Answer:
        scored = score(decode(ask.body))
        return Answer(200, encode(scored.outputs), scored=scored)

    return [Route("POST", "/predict", answer, predicts=True, content_types=("application/json",))]


def problem(failure: Failure) -> Answer:
    """The problem document of a failure, with its parts as members of their own."""
    document = {
        "type": f"urn:modelfleet:problem:{failure.kind}",
        "title": failure.title,
        "status": failure.status,
        "detail": failure.detail,
        **failure.details,
    }
    return Answer(failure.status, msgspec.json.encode(document), "application/problem+json")


PREDICT = Protocol("predict", routes, problem)
