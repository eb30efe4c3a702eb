# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests that a model server captured, read so that they can be sent again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.modelfleet.onprem.plugins.module_utils._replay import Answered


@dataclass(frozen=True)
class Columns:
    """What a contract says: the columns of a row in their order, and the outputs.

    ``nullable`` are those that may be missing, ``classes`` the labels that are predicted, if it names them.
    """

    names: tuple[str, ...] = ()
    nullable: frozenset[str] = frozenset()
    classes: object = None
    probabilities: bool = False


def read_columns(contract: Path) -> Columns:
    """The columns in a ``contract.json``; ValueError if it is none."""
    try:
        document = json.loads(contract.read_bytes())
        outputs = {output["name"]: output for output in document["outputs"]}
        return Columns(
            tuple(column["name"] for column in document["inputs"]),
            frozenset(column["name"] for column in document["inputs"] if column.get("nullable")),
            outputs.get("predictions", {}).get("classes"),
            "probabilities" in outputs,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{contract}: expected a contract, found: {error!r}") from error


@dataclass(frozen=True)
class Rows:
    """Captured rows, the newest first, in the order of the columns that were asked for.

    ``answered`` is what the release that captured the newest of them gave; ``why_none`` says why there are no rows.
    """

    instances: Sequence[list[Any]]
    answered: Answered | None = None
    why_none: str = ""

    def only(self, rows: Sequence[int]) -> Rows:
        return Rows([self.instances[row] for row in rows])


def read_rows(files: Iterable[Path], most: int, columns: Columns, of: str | None) -> Rows:
    """Up to ``most`` rows out of ``files``, the newest first; those that ``of`` answered, a digest or its first digits.

    Without it they are those of any release. A file is JSON lines, as a model server captures requests. A row that
    lacks a column which may not be missing, as one that is redacted or new, is not used.
    """
    instances: list[list[Any]] = []
    predictions: list[Any] = []
    scores: list[Any] = []
    lacking: Counter[str] = Counter()
    newest: object = None
    for line in _lines(files):
        if len(instances) >= most:
            break
        if of and not str(line.get("digest")).startswith(of):
            continue
        names = line["columns"]
        missing = [name for name in columns.names if name not in names and name not in columns.nullable]
        if missing:
            lacking[missing[0]] += len(line["instances"])
            continue
        places = [names.index(name) if name in names else None for name in columns.names]
        room = most - len(instances)
        rows = line["instances"][:room]
        # Of several releases before this one, the answers of the last one count.
        newest = newest or line.get("digest")
        outputs = (line.get("outputs") or {}) if line.get("digest") == newest else {}
        instances += [[None if place is None else row[place] for place in places] for row in rows]
        predictions += (outputs.get("predictions") or [None] * len(rows))[:room]
        scores += (outputs.get("probabilities") or outputs.get("scores") or [None] * len(rows))[:room]
    if not instances:
        name, count = next(iter(lacking.most_common(1)), ("", 0))
        redacted = f"{count} rows without the column {name}, which is redacted or new"
        return Rows([], None, redacted if lacking else "none: the service captures none (capture_share), or none yet")
    answered = Answered(predictions, scores if any(score is not None for score in scores) else None)
    return Rows(instances, answered if any(value is not None for value in predictions) else None)


def _lines(files: Iterable[Path]) -> Iterator[Mapping[str, Any]]:
    """The documents in ``files``, each file's last line first. What is being written just now is passed over."""
    for path in files:
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            # The oldest goes when there is no room.
            continue
        for line in reversed(text.splitlines()):
            try:
                document = json.loads(line)
            except ValueError:
                continue
            if isinstance(document, dict) and isinstance(document.get("instances"), list) and document.get("columns"):
                yield document
