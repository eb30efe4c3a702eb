# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Contracts compared: what breaks a client that was made for the old one, and by which rule the rest does not."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.contract import (
    ContractError,
    compare,
    grade,
    parse_contract,
)

AGE = {"name": "age", "dtype": "int64", "minimum": 18, "maximum": 80}
SIZE = {"name": "size", "dtype": "float64", "nullable": False, "minimum": 0.5, "maximum": 9.5}
COLOUR = {"name": "colour", "dtype": "category", "categories": ["red", "blue"], "ordered": False}
LABEL = {"name": "predictions", "dtype": "string", "shape": [-1], "classes": ["a", "b", "c"]}
SHARES = {"name": "probabilities", "dtype": "float64", "shape": [-1, 3], "classes": ["a", "b", "c"]}


def contract(*inputs: Any, outputs: Any = (LABEL, SHARES), columns: bool = True) -> Any:
    document = {"columns": columns, "inputs": list(inputs or (AGE, SIZE, COLOUR)), "outputs": list(outputs)}
    return parse_contract(document, "tumour-1")


def changed(column: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {**column, **keys}


def differences(old: Any, new: Any) -> tuple[str, list[str]]:
    found = compare(old, new)
    return grade(found), [str(difference) for difference in found]


def typed(dtype: str, **keys: Any) -> Any:
    return contract({"name": "x", "dtype": dtype, **keys})


@pytest.mark.parametrize(
    ("old", "new", "breaks"),
    [
        ({"minimum": 0, "maximum": 9}, {"minimum": 1, "maximum": 9}, True),
        ({"minimum": 0, "maximum": 9}, {"minimum": 0, "maximum": 8}, True),
        ({"minimum": 0, "maximum": 9}, {"minimum": -1, "maximum": 8}, True),
        ({"minimum": 0, "maximum": 9}, {"minimum": -1, "maximum": 10}, False),
        ({"minimum": 0, "maximum": 9}, {}, False),
        ({}, {"minimum": 0, "maximum": 9}, True),
    ],
    ids=["from below", "from above", "moved", "wider", "none any more", "one now"],
)
def test_a_narrower_range_breaks_clients_only_where_that_is_asked_for(old: Any, new: Any, breaks: bool) -> None:
    contracts = typed("int64", **old), typed("int64", **new)
    assert grade(compare(*contracts)) == "compatible"
    assert grade(compare(*contracts, ranges="breaking")) == ("breaking" if breaks else "compatible")


def test_the_same_contract_is_identical() -> None:
    assert differences(contract(), contract()) == ("identical", [])


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ((AGE, SIZE), "column 'colour': removed: requests that have it are refused"),
        (
            (changed(AGE, name="age_in_years"), SIZE, COLOUR),
            "column 'age': renamed, as it seems, to 'age_in_years': requests name it as before",
        ),
        (
            (changed(AGE, name="years"), SIZE, COLOUR),
            "column 'age': renamed, as it seems, to 'years': requests name it as before",
        ),
        (
            (SIZE, COLOUR, changed(AGE, name="Age")),
            "column 'age': renamed, as it seems, to 'Age': requests name it as before",
        ),
        (
            (AGE, SIZE, COLOUR, {"name": "weight", "dtype": "float64", "nullable": True}),
            "column 'weight': new and required: requests that lack it are refused",
        ),
        (
            (SIZE, AGE, COLOUR),
            "columns: 'age', 'size' in another order: rows that are lists would be read wrongly",
        ),
        (
            (changed(AGE, dtype="int32"), SIZE, COLOUR),
            "column 'age': int32, was int64: values that it took are refused",
        ),
        (
            (AGE, SIZE, changed(COLOUR, categories=["red"])),
            "column 'colour': categories 'blue' removed: requests that have them are refused",
        ),
    ],
    ids=["removed", "renamed alike", "renamed in place", "renamed and moved", "new", "moved", "narrower", "category"],
)
def test_what_breaks_requests_is_said(inputs: Any, words: str) -> None:
    assert differences(contract(), contract(*inputs)) == ("breaking", [words])


def test_a_column_of_another_type_at_the_same_place_is_no_renamed_one() -> None:
    found, lines = differences(contract(), contract(changed(AGE, name="ages", dtype="string"), SIZE, COLOUR))
    assert (found, lines) == (
        "breaking",
        [
            "column 'age': removed: requests that have it are refused",
            "column 'ages': new and required: requests that lack it are refused",
        ],
    )


def test_a_renamed_column_is_compared_under_its_new_name() -> None:
    lines = differences(contract(), contract(AGE, changed(SIZE, name="sizes", maximum=8.0), COLOUR))[1]
    assert lines == [
        "column 'size': renamed, as it seems, to 'sizes': requests name it as before",
        "column 'sizes': range 0.5 to 8, was 0.5 to 9.5 (a range describes the training data and refuses no request)",
    ]


def test_null_that_is_withdrawn_is_breaking() -> None:
    old, new = contract(changed(SIZE, nullable=True)), contract(SIZE)
    assert differences(old, new) == ("breaking", ["column 'size': takes no null any more"])


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ((LABEL,), ["output 'probabilities': removed: answers lack it"]),
        (
            (changed(LABEL, classes=["a", "b"]), SHARES),
            ["output 'predictions': classes 'c' removed (2, were 3)"],
        ),
        (
            (changed(LABEL, classes=["a", "b", "c", "d"]), SHARES),
            ["output 'predictions': classes 'd' added (4, were 3)"],
        ),
        (
            (changed(LABEL, classes=["a", "b", "x"]), SHARES),
            ["output 'predictions': classes 'c' removed", "output 'predictions': classes 'x' added"],
        ),
        (
            (changed(LABEL, classes=["b", "a", "c"]), SHARES),
            ["output 'predictions': classes in another order: 'b', 'a', 'c', were 'a', 'b', 'c'"],
        ),
        ((LABEL, changed(SHARES, shape=[-1, 2])), ["output 'probabilities': shape rows x 2, was rows x 3"]),
        (
            (changed(LABEL, dtype="int64"), SHARES),
            ["output 'predictions': int64, was string: clients do not expect such values"],
        ),
        (
            (changed(LABEL, classes=None), SHARES),
            ["output 'predictions': classes 'a', 'b', 'c' removed (0, were 3)"],
        ),
    ],
    ids=["removed", "one fewer", "one more", "another", "order", "shape", "type", "no classes"],
)
def test_what_breaks_who_reads_answers_is_said(outputs: Any, words: list[str]) -> None:
    assert differences(contract(), contract(outputs=outputs)) == ("breaking", words)


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (
            contract(changed(AGE, minimum=30, maximum=40), SIZE, COLOUR),
            "column 'age': range 30 to 40, was 18 to 80 (a range describes the training data and refuses no request)",
        ),
        (
            contract({"name": "age", "dtype": "int64"}, SIZE, COLOUR),
            "column 'age': range none, was 18 to 80 (a range describes the training data and refuses no request)",
        ),
        (
            contract(AGE, changed(SIZE, nullable=True), COLOUR),
            "column 'size': takes null (what may be missing may also be there)",
        ),
        (
            contract(changed(AGE, dtype="float64"), SIZE, COLOUR),
            "column 'age': float64, was int64 (a wider type takes every value of the old one)",
        ),
        (
            contract(AGE, SIZE, changed(COLOUR, categories=["red", "blue", "green"])),
            "column 'colour': categories 'green' added (it takes every category that it took)",
        ),
        (
            contract(AGE, SIZE, changed(COLOUR, categories=["blue", "red"])),
            "column 'colour': categories in another order (requests are the same)",
        ),
        (
            contract(AGE, SIZE, changed(COLOUR, ordered=True)),
            "column 'colour': categories ordered (requests are the same)",
        ),
        (
            contract(outputs=(LABEL, SHARES, {"name": "scores", "dtype": "float64", "shape": [-1]})),
            "output 'scores': new (who does not ask for it is answered as before)",
        ),
        (
            contract(outputs=(LABEL, changed(SHARES, dtype="float32"))),
            "output 'probabilities': float32, was float64 (the old type holds every value of the new one)",
        ),
        (
            contract(columns=False),
            "columns: the model takes an array, not a table (requests are the same for both)",
        ),
    ],
)
def test_what_breaks_nobody_names_its_rule(new: Any, words: str) -> None:
    assert differences(contract(), new) == ("compatible", [words])


def test_what_breaks_comes_first() -> None:
    lines = differences(contract(), contract(changed(AGE, maximum=90), SIZE))[1]
    assert [line.split(":")[0] for line in lines] == ["column 'colour'", "column 'age'"]


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("int8", "int16", "compatible"),
        ("uint8", "int16", "compatible"),
        ("int8", "uint16", "breaking"),
        ("uint64", "int64", "breaking"),
        ("int64", "float32", "compatible"),
        ("float64", "int64", "breaking"),
        ("float32", "float64", "compatible"),
        ("float64", "float32", "breaking"),
        ("bool", "int64", "breaking"),
        ("string", "float64", "breaking"),
        ("datetime64[ns]", "datetime64[s]", "compatible"),
        ("datetime64[s]", "datetime64[us]", "compatible"),
        ("datetime64[us]", "datetime64[ns]", "breaking"),
        ("datetime64[us]", "string", "breaking"),
    ],
)
def test_a_type_is_wider_when_it_takes_every_value(old: str, new: str, found: str) -> None:
    assert differences(typed(old), typed(new))[0] == found


@pytest.mark.parametrize(
    ("categories", "new", "found"),
    [
        (["a", "b"], "string", "compatible"),
        (["a", 1], "string", "breaking"),
        ([True, False], "bool", "compatible"),
        ([1, 2], "bool", "breaking"),
    ],
)
def test_categories_may_become_any_text(categories: list[Any], new: str, found: str) -> None:
    assert differences(typed("category", categories=categories), typed(new))[0] == found


NUMBER = {"name": "predictions", "dtype": "float64", "shape": [-1]}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (NUMBER, changed(NUMBER, classes=[0.0, 1.0]), "labels, were numbers"),
        (NUMBER, changed(NUMBER, dtype="int64", classes=[0, 1]), "labels, were numbers"),
        (changed(NUMBER, classes=[0.0, 1.0]), NUMBER, "numbers, were labels"),
        (changed(NUMBER, dtype="int64", classes=[0, 1]), NUMBER, "numbers, were labels"),
    ],
)
def test_a_regression_and_a_classifier_do_not_replace_each_other(old: Any, new: Any, words: str) -> None:
    found = compare(contract(outputs=(old,)), contract(outputs=(new,)))
    assert grade(found) == "breaking"
    said = f"output 'predictions': {words}: another kind of prediction, which clients do not expect"
    assert said in [str(each) for each in found if each.breaking]


@pytest.mark.parametrize(
    "output", [changed(NUMBER, dtype="int64"), {"name": "probabilities", "dtype": "float64", "shape": [-1, 2]}]
)
def test_labels_and_their_probabilities_may_be_named(output: dict[str, Any]) -> None:
    old, new = contract(outputs=(output,)), contract(outputs=(changed(output, classes=[0, 1]),))
    assert [str(each) for each in compare(old, new)] == [
        f"output {output['name']!r}: classes are named (the old contract named none)"
    ]


def test_classes_of_several_labels_are_compared_each() -> None:
    pair = changed(LABEL, shape=[-1, 2], classes=[["a", "b"], ["x", "y"]])
    old, new = contract(outputs=(pair,)), contract(outputs=(changed(pair, classes=[["a", "b"], ["x"]]),))
    words = "output 'predictions', label 1: classes 'y' removed (1, were 2)"
    assert differences(old, old) == ("identical", [])
    assert differences(old, new) == ("breaking", [words])
    named = contract(outputs=(changed(pair, classes=None),))
    words = "output 'predictions': classes are named (the old contract named none)"
    assert differences(named, old) == ("compatible", [words])
    assert differences(old, named)[0] == "breaking"


def test_text_that_becomes_categories_is_breaking() -> None:
    assert differences(typed("string"), typed("category", categories=["a"]))[0] == "breaking"


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (None, ["a", "b"], ("breaking", ["column 'x': takes 'a', 'b' alone, was any text: other values are refused"])),
        (["a", "b"], ["a"], ("breaking", ["column 'x': categories 'b' removed: requests that have them are refused"])),
        (
            ["a"],
            ["a", "b"],
            ("compatible", ["column 'x': categories 'b' added (it takes every category that it took)"]),
        ),
        (["a"], None, ("compatible", ["column 'x': takes any text (it takes every category that it took)"])),
    ],
    ids=["some alone", "one less", "one more", "any"],
)
def test_text_may_be_of_some_values_alone(old: Any, new: Any, found: tuple[str, list[str]]) -> None:
    def text(categories: list[str] | None) -> Any:
        return typed("string", **({"categories": categories} if categories else {}))

    assert differences(text(old), text(new)) == found


@pytest.mark.parametrize(("new", "found"), [(["a", "b"], "compatible"), (["a"], "breaking")])
def test_categories_may_become_text_that_has_them_all(new: list[str], found: str) -> None:
    old = {"categories": ["a", "b"]}
    assert differences(typed("category", **old), typed("string", categories=new))[0] == found
    assert differences(typed("string", **old), typed("category", categories=new))[0] == found


def test_categories_are_compared_with_their_types() -> None:
    old, new = typed("category", categories=[1, 2]), typed("category", categories=[True, 2])
    assert differences(old, new)[1][0] == "column 'x': categories 1 removed: requests that have them are refused"


def test_many_of_a_kind_are_counted() -> None:
    old, new = typed("category", categories=list("abcdefgh")), typed("category", categories=["a"])
    assert "categories 'b', 'c', 'd', 'e', 'f' and 2 more removed" in differences(old, new)[1][0]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "m1: contract.json: expected an object, found list"),
        ({"columns": True, "inputs": []}, "m1: contract.json: 'outputs' is missing"),
        ({"columns": True, "inputs": [{"name": "x"}], "outputs": []}, "m1: contract.json: .*missing.*'dtype'"),
    ],
)
def test_a_contract_that_is_none_is_refused(document: Any, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        parse_contract(document, "m1")


def test_what_a_newer_contract_says_besides_is_passed_over() -> None:
    assert parse_contract({"columns": True, "inputs": [{**AGE, "unit": "years"}], "outputs": [LABEL]}, "m1").inputs


def test_the_words_are_one_line() -> None:
    _found, lines = differences(contract(), contract(changed(AGE, name="a\nb"), SIZE, COLOUR))
    assert not any(re.search(r"\n", line) for line in lines)
