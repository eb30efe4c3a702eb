# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare two releases' contracts, by what a client notices that was made for the old one.

The model server has the last word on which requests it takes, so its rules are those here: a request has every column
and no other, by name or in the contract's order, and every value fits its column's dtype. Hence a new column is always
required, and other places of the same columns are breaking: rows that are lists would be read as other columns, in
silence. ``minimum`` and ``maximum`` describe the training data and differ with each training; the model server counts
what is outside them and refuses no request for it. So another range is compatible, and a narrower one too, unless the
service's policy says that it is breaking, for a model that knows less of what clients send may answer it worse.

Of answers the reverse holds: they may become narrower, for a client that reads the old ones reads those, too.

Pure: contracts are the documents of ``contract.json``, of which this reads what it compares. The model server, whose
format it is, checks the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any, Literal

Grade = Literal["identical", "compatible", "breaking"]
Ranges = Literal["compatible", "breaking"]
"""What a narrower range of a column is."""
Value = bool | int | float | str

_FLOAT_BITS = {"float32": 32, "float64": 64}
# The whole years that a date may have: nanoseconds in 64 bits hold fewer.
_DATES = {"datetime64[s]": 2, "datetime64[ms]": 2, "datetime64[us]": 2, "datetime64[ns]": 1}
# Names that share this much of their letters are taken for one another.
_ALIKE = 0.6
_LISTED = 5


class ContractError(ValueError):
    """A contract that cannot be read, in one line."""


@dataclass(frozen=True)
class Column:
    """A column that a request has. With ``categories`` it takes these alone, else whatever its dtype allows."""

    name: str
    dtype: str
    nullable: bool = False
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[Value, ...] | None = None
    ordered: bool | None = None


@dataclass(frozen=True)
class Output:
    """A part of an answer. ``shape`` is of all rows together, -1 is their number.

    ``classes`` are its labels; of a row of several labels those of each.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    classes: tuple[Value, ...] | tuple[tuple[Value, ...], ...] | None = None


@dataclass(frozen=True)
class Contract:
    """What a model takes and gives. ``columns``: it takes a table with names, not a plain array."""

    columns: bool
    inputs: tuple[Column, ...]
    outputs: tuple[Output, ...]


@dataclass(frozen=True)
class Difference:
    """Something that is not as before. ``words`` say what; of what breaks no client also by which rule."""

    where: str
    words: str
    breaking: bool

    def __str__(self) -> str:
        return f"{self.where}: {self.words}"


def parse_contract(document: object, where: str) -> Contract:
    """The contract in the document of a ``contract.json``; ``where`` names it in errors."""
    try:
        if not isinstance(document, Mapping):
            raise TypeError(f"expected an object, found {type(document).__name__}")
        return Contract(
            columns=bool(document["columns"]),
            inputs=tuple(Column(**_read(column, Column)) for column in document["inputs"]),
            outputs=tuple(Output(**_read(output, Output)) for output in document["outputs"]),
        )
    except KeyError as error:
        raise ContractError(f"{where}: contract.json: {error} is missing") from None
    except TypeError as error:
        raise ContractError(f"{where}: contract.json: {error}") from None


def _read(document: Mapping[str, Any], kind: type[Column] | type[Output]) -> dict[str, Any]:
    known = {key: value for key, value in document.items() if key in kind.__dataclass_fields__}
    return {key: _tuple(value) for key, value in known.items()}


def _tuple(value: Any) -> Any:
    """A list, and the lists in it, as tuples."""
    if not isinstance(value, list):
        return value
    return tuple(tuple(each) if isinstance(each, list) else each for each in value)


def compare(old: Contract, new: Contract, ranges: Ranges = "compatible") -> list[Difference]:
    """Every difference of ``new`` from ``old``, those that break clients first."""
    found = [*_columns(old, new, ranges), *_outputs(old, new)]
    return sorted(found, key=lambda difference: not difference.breaking)


def grade(differences: Sequence[Difference]) -> Grade:
    """What the differences come to."""
    if not differences:
        return "identical"
    return "breaking" if any(difference.breaking for difference in differences) else "compatible"


def _columns(old: Contract, new: Contract, ranges: Ranges) -> Iterator[Difference]:
    before, after = ({column.name: column for column in each.inputs} for each in (old, new))
    removed = [name for name in before if name not in after]
    added = [name for name in after if name not in before]
    renamed = _renamed(removed, added, old, new)
    for name in removed:
        if name in renamed:
            yield _breaks(f"column {name!r}", f"renamed, as it seems, to {renamed[name]!r}: requests name it as before")
        else:
            yield _breaks(f"column {name!r}", "removed: requests that have it are refused")
    for name in added:
        if name not in renamed.values():
            yield _breaks(f"column {name!r}", "new and required: requests that lack it are refused")
    kept = [name for name in before if name in after]
    if kept != [name for name in after if name in before]:
        moved = [
            name for name, other in zip(kept, [name for name in after if name in before], strict=True) if name != other
        ]
        yield _breaks("columns", f"{_shown(moved)} in another order: rows that are lists would be read wrongly")
    for name in kept:
        yield from _column(before[name], after[name], ranges)
    for name, other in renamed.items():
        yield from _column(before[name], after[other], ranges)
    if old.columns != new.columns:
        yield _keeps("columns", f"the model takes {_form(new)}, not {_form(old)}", "requests are the same for both")


def _renamed(removed: Sequence[str], added: Sequence[str], old: Contract, new: Contract) -> dict[str, str]:
    """Which added column each removed one likely became: a like name, or else the same place; of the same dtype."""
    olds, news = ([column.name for column in each.inputs] for each in (old, new))
    dtypes = {column.name: column.dtype for column in new.inputs}
    found: dict[str, str] = {}
    for column in old.inputs:
        if column.name not in removed:
            continue
        left = [name for name in added if name not in found.values() and dtypes[name] == column.dtype]
        likeness = {name: SequenceMatcher(None, column.name.lower(), name.lower()).ratio() for name in left}
        same_place = [name for name in left if olds.index(column.name) == news.index(name) and len(olds) == len(news)]
        best = max(left, key=lambda name: likeness[name], default=None)
        if best is not None and likeness[best] >= _ALIKE:
            found[column.name] = best
        elif same_place:
            found[column.name] = same_place[0]
    return found


def _column(old: Column, new: Column, ranges: Ranges) -> Iterator[Difference]:
    where = f"column {new.name!r}"
    if old.dtype != new.dtype:
        words = f"{new.dtype}, was {old.dtype}"
        if _takes(new, old):
            yield _keeps(where, words, "a wider type takes every value of the old one")
        else:
            yield _breaks(where, f"{words}: values that it took are refused")
    elif not _same(old.categories, new.categories):
        yield from _categories(where, old.categories, new.categories)
    if old.ordered != new.ordered and old.dtype == new.dtype:
        yield _keeps(where, f"categories {'ordered' if new.ordered else 'without an order'}", "requests are the same")
    if old.nullable and not new.nullable:
        yield _breaks(where, "takes no null any more")
    if new.nullable and not old.nullable:
        yield _keeps(where, "takes null", "what may be missing may also be there")
    if (old.minimum, old.maximum) != (new.minimum, new.maximum):
        words = f"range {_range(new)}, was {_range(old)}"
        if ranges == "breaking" and _narrower(old, new):
            yield _breaks(where, f"{words}: values that the model knew are new to it")
        else:
            yield _keeps(where, words, "a range describes the training data and refuses no request")


def _narrower(old: Column, new: Column) -> bool:
    """Whether a column's range lacks something that it had. No end of a range is without end."""

    def ends(column: Column) -> tuple[float, float]:
        return (
            -math.inf if column.minimum is None else column.minimum,
            math.inf if column.maximum is None else column.maximum,
        )

    (least, most), (new_least, new_most) = ends(old), ends(new)
    return new_least > least or new_most < most


def _categories(where: str, old: Sequence[Value] | None, new: Sequence[Value] | None) -> Iterator[Difference]:
    if old is None or new is None:
        if new is None:
            yield _keeps(where, "takes any text", "it takes every category that it took")
        else:
            yield _breaks(where, f"takes {_shown(new)} alone, was any text: other values are refused")
        return
    removed, added = _without(old, new), _without(new, old)
    if removed:
        yield _breaks(where, f"categories {_shown(removed)} removed: requests that have them are refused")
    if added:
        yield _keeps(where, f"categories {_shown(added)} added", "it takes every category that it took")
    if not removed and not added:
        yield _keeps(where, "categories in another order", "requests are the same")


def _outputs(old: Contract, new: Contract) -> Iterator[Difference]:
    before, after = ({output.name: output for output in each.outputs} for each in (old, new))
    for name, output in before.items():
        if name not in after:
            yield _breaks(f"output {name!r}", "removed: answers lack it")
        else:
            yield from _output(output, after[name])
    for name in after:
        if name not in before:
            yield _keeps(f"output {name!r}", "new", "who does not ask for it is answered as before")


def _output(old: Output, new: Output) -> Iterator[Difference]:
    where = f"output {new.name!r}"
    if old.dtype != new.dtype:
        words = f"{new.dtype}, was {old.dtype}"
        if _takes(Column("", old.dtype), Column("", new.dtype)):
            yield _keeps(where, words, "the old type holds every value of the new one")
        else:
            yield _breaks(where, f"{words}: clients do not expect such values")
    if old.shape != new.shape:
        yield _breaks(where, f"shape {_shape(new)}, was {_shape(old)}")
    if (_gives_numbers(old) and new.classes) or (old.classes and _gives_numbers(new)):
        words = "labels, were numbers" if new.classes else "numbers, were labels"
        yield _breaks(where, f"{words}: another kind of prediction, which clients do not expect")
        return
    if old.classes is None and new.classes is not None:
        yield _keeps(where, "classes are named", "the old contract named none")
        return
    for place, (before, after) in enumerate(zip_longest(_of_each(old), _of_each(new), fillvalue=())):
        if not _same(before, after):
            yield from _classes(f"{where}, label {place}" if _has_several(old) else where, before, after)


def _gives_numbers(output: Output) -> bool:
    """Whether it predicts numbers, as a regression does."""
    return output.name == "predictions" and output.classes is None and output.dtype in _FLOAT_BITS


def _has_several(output: Output) -> bool:
    return bool(output.classes) and isinstance((output.classes or ())[0], tuple)


def _of_each(output: Output) -> Sequence[Any]:
    """The classes of each label of a row."""
    return output.classes or () if _has_several(output) else (output.classes or (),)


def _classes(where: str, old: Sequence[Value], new: Sequence[Value]) -> Iterator[Difference]:
    removed, added = _without(old, new), _without(new, old)
    count = f" ({len(new)}, were {len(old)})" if len(old) != len(new) else ""
    if removed:
        yield _breaks(where, f"classes {_shown(removed)} removed{count}")
    if added:
        yield _breaks(where, f"classes {_shown(added)} added{count}")
    if not removed and not added:
        yield _breaks(where, f"classes in another order: {_shown(new)}, were {_shown(old)}")


def _takes(wide: Column, narrow: Column) -> bool:
    """Whether a column takes every value, null apart, that another one of a different dtype takes."""
    old, new = narrow.dtype, wide.dtype
    if wide.categories is not None:
        return narrow.categories is not None and not _without(narrow.categories, wide.categories)
    if old == "category":
        kinds = {type(category) for category in narrow.categories or ()}
        if new == "string":
            return kinds <= {str}
        return new == "bool" and kinds <= {bool}
    if old in _DATES and new in _DATES:
        return _DATES[old] <= _DATES[new]
    if new in _FLOAT_BITS:
        # Whole numbers are numbers; 32 bits hold the largest of them, if not each exactly.
        return _integer(old) is not None or _FLOAT_BITS.get(old, 99) <= _FLOAT_BITS[new]
    limits, held = _integer(new), _integer(old)
    return limits is not None and held is not None and limits[0] <= held[0] and held[1] <= limits[1]


def _integer(dtype: str) -> tuple[int, int] | None:
    """The smallest and the largest whole number of a dtype such as ``uint8``, None of any other."""
    for prefix, signed in (("int", True), ("uint", False)):
        bits = dtype.removeprefix(prefix)
        if bits != dtype and bits.isdecimal():
            return (-(2 ** (int(bits) - 1)), 2 ** (int(bits) - 1) - 1) if signed else (0, 2 ** int(bits) - 1)
    return None


def _typed(values: Sequence[Value] | None) -> list[tuple[type, Value]]:
    # For 1, 1.0 and true are equal.
    return [(type(value), value) for value in values or ()]


def _same(old: Sequence[Value] | None, new: Sequence[Value] | None) -> bool:
    return _typed(old) == _typed(new)


def _without(values: Sequence[Value], others: Sequence[Value]) -> list[Value]:
    known = set(_typed(others))
    return [value for value in values if (type(value), value) not in known]


def _breaks(where: str, words: str) -> Difference:
    return Difference(where, words, breaking=True)


def _keeps(where: str, words: str, rule: str) -> Difference:
    return Difference(where, f"{words} ({rule})", breaking=False)


def _form(contract: Contract) -> str:
    return "a table" if contract.columns else "an array"


def _range(column: Column) -> str:
    if column.minimum is None or column.maximum is None:
        return "none"
    return f"{column.minimum:g} to {column.maximum:g}"


def _shape(output: Output) -> str:
    return " x ".join("rows" if size == -1 else str(size) for size in output.shape)


def _shown(values: Sequence[Value]) -> str:
    more = f" and {len(values) - _LISTED} more" if len(values) > _LISTED else ""
    return ", ".join(map(repr, values[:_LISTED])) + more
