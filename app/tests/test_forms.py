# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Models in their forms, compared with scikit-learn itself."""

from __future__ import annotations

import importlib
import json
import pickle
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import skops.io
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from model_server.bundle.cli import main
from model_server.bundle.contract import Contract, Input
from model_server.bundle.manifest import BundleError, read_manifest
from model_server.bundle.prove import _around, _difference, overall
from model_server.scoring.decode import decoder
from model_server.scoring.encode import encode
from model_server.scoring.errors import RefusedError
from model_server.scoring.forms.registry import FORMS
from model_server.scoring.load import load
from model_server.scoring.scorer import Outputs, Predictor, Scorer
from model_server.scoring.table import Table

Bundle = Callable[..., Path]
random = np.random.default_rng(11)
ROWS = 240
NUMBERS = random.normal([0, 5, 100, -3], [1, 2, 30, 0.1], size=(ROWS, 4))
TWO = (NUMBERS[:, 0] + NUMBERS[:, 1] > 5).astype(int)
THREE = np.array(["low", "middle", "high"])[np.digitize(NUMBERS[:, 1], [4, 6])]
VALUE = NUMBERS[:, 0] * 3 + NUMBERS[:, 2]
HOLES = np.where(random.random(NUMBERS.shape) < 0.1, np.nan, NUMBERS)
COLUMNS = list("abcd")


def started(bundle: Path, form: str | None = None) -> Scorer:
    scorer = load(bundle, form)
    scorer.start()
    return scorer


def asked(scorer: Scorer, rows: list[Any]) -> dict[str, Any]:
    """What the server would answer, from bytes to bytes."""
    body = {"instances": rows, "probabilities": scorer.contract.has_probabilities}
    answer: dict[str, Any] = json.loads(encode(scorer.predict(decoder(scorer.contract)(json.dumps(body).encode()))))
    return answer


def as_json(rows: Any) -> list[Any]:
    return [[None if value != value else value for value in row] for row in np.asarray(rows).tolist()]


def check(bundle: Path, model: Any, given: Any, rows: list[Any]) -> None:
    """All rows at once and each alone, against the model's own answers."""
    predictions = model.predict(given)
    scorer = started(bundle)
    probabilities = model.predict_proba(given) if scorer.contract.has_probabilities else None
    alone = [asked(scorer, [row]) for row in rows[:5]]
    for answer in (asked(scorer, rows), {name: [one[name][0] for one in alone] for name in alone[0]}):
        count = len(answer["predictions"])
        if np.asarray(predictions).dtype.kind == "f":
            np.testing.assert_allclose(answer["predictions"], predictions[:count], rtol=1e-12, atol=1e-12)
        else:
            assert answer["predictions"] == predictions[:count].tolist()
        if probabilities is not None:
            np.testing.assert_allclose(answer["probabilities"], probabilities[:count], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("form", "model", "rows", "target"),
    [
        ("linear", make_pipeline(StandardScaler(), LogisticRegression()), NUMBERS, TWO),
        ("linear", make_pipeline(StandardScaler(with_mean=False), LogisticRegression(max_iter=9999)), NUMBERS, THREE),
        ("linear", make_pipeline(MinMaxScaler(clip=True), PCA(2, whiten=True), LogisticRegression()), NUMBERS, THREE),
        ("linear", make_pipeline(RobustScaler(), SelectKBest(k=2), LinearSVC()), NUMBERS, THREE),
        ("linear", make_pipeline(MaxAbsScaler(), SGDClassifier(loss="log_loss", random_state=0)), NUMBERS, THREE),
        ("linear", make_pipeline(SimpleImputer(), StandardScaler(), RidgeClassifier()), HOLES, TWO),
        ("linear", LinearDiscriminantAnalysis(), NUMBERS, THREE),
        ("linear", LinearRegression(), NUMBERS, VALUE),
        ("linear", LinearRegression(), NUMBERS, np.stack([VALUE, -VALUE], axis=1)),
        ("linear", make_pipeline(StandardScaler(), SGDRegressor(random_state=0)), NUMBERS, VALUE),
        ("linear", make_pipeline(StandardScaler(), PoissonRegressor()), NUMBERS, np.abs(VALUE)),
        ("linear", GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, cv=2), NUMBERS, TWO),
        ("trees", RandomForestClassifier(30, random_state=0), NUMBERS, THREE),
        ("trees", RandomForestClassifier(10, random_state=0), HOLES, TWO),
        ("trees", RandomForestClassifier(5, random_state=0), NUMBERS, np.stack([TWO, 1 - TWO], axis=1)),
        ("trees", RandomForestRegressor(20, random_state=0), NUMBERS, VALUE),
        ("trees", RandomForestRegressor(5, random_state=0), NUMBERS, np.stack([VALUE, -VALUE], axis=1)),
        ("trees", make_pipeline(StandardScaler(), ExtraTreesClassifier(20, random_state=0)), NUMBERS, THREE),
        ("trees", DecisionTreeClassifier(random_state=0), HOLES, THREE),
        ("trees", DecisionTreeRegressor(random_state=0), NUMBERS, VALUE),
        ("trees", GradientBoostingClassifier(n_estimators=15, random_state=0), NUMBERS, TWO),
        ("trees", GradientBoostingClassifier(n_estimators=9, loss="exponential", random_state=0), NUMBERS, TWO),
        ("trees", GradientBoostingClassifier(n_estimators=5, random_state=0), NUMBERS, THREE),
        ("trees", GradientBoostingRegressor(n_estimators=15, random_state=0), NUMBERS, VALUE),
        ("trees", HistGradientBoostingClassifier(max_iter=15), HOLES, TWO),
        ("trees", HistGradientBoostingClassifier(max_iter=5), HOLES, THREE),
        ("trees", HistGradientBoostingRegressor(max_iter=15), HOLES, VALUE),
        ("trees", HistGradientBoostingRegressor(max_iter=9, loss="poisson"), NUMBERS, np.abs(VALUE)),
    ],
)
def test_a_compiled_model_answers_as_scikit_learn(
    bundle_of: Bundle, form: str, model: Any, rows: Any, target: Any
) -> None:
    model.fit(rows, target)
    bundle = bundle_of(model, pd.DataFrame(rows, columns=COLUMNS))
    manifest = read_manifest(bundle)
    assert manifest.scorer == form, manifest.tried
    assert manifest.tried[-1]["rows"] >= ROWS + 10_000
    check(bundle, model, rows, as_json(rows))


@pytest.mark.parametrize(
    "dtypes", [dict.fromkeys("abcd", "float32"), {"a": "float32", "b": "int64"}, {"c": "uint8", "d": "bool"}]
)
def test_columns_keep_their_precision(bundle_of: Bundle, dtypes: dict[str, str]) -> None:
    frame = pd.DataFrame(np.abs(NUMBERS), columns=COLUMNS).astype(dtypes)
    for model in (make_pipeline(StandardScaler(), RidgeClassifier()), RandomForestClassifier(5, random_state=0)):
        bundle = bundle_of(model.fit(frame, TWO), frame)
        assert read_manifest(bundle).scorer != "native"
        check(bundle, model, frame, [list(row) for row in zip(*(frame[name].tolist() for name in frame), strict=True)])


def mixed_frame() -> pd.DataFrame:
    frame = pd.DataFrame(HOLES, columns=COLUMNS)
    frame["city"] = np.where(random.random(ROWS) < 0.1, np.array(None), random.choice(["Bonn", "Köln", "Ulm"], ROWS))
    frame["grade"] = pd.Categorical(random.choice(["low", "high"], ROWS), categories=["low", "high"], ordered=True)
    frame["smoker"] = random.random(ROWS) < 0.5
    frame["count"] = random.integers(0, 4, ROWS)
    return frame


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    objects = frame.astype(object)
    found: list[dict[str, Any]] = objects.where(objects.notna(), None).to_dict("records")
    return found


@pytest.mark.parametrize(
    "estimator", [LogisticRegression(), HistGradientBoostingClassifier(max_iter=9), GradientBoostingClassifier()]
)
def test_columns_by_name_are_compiled_too(bundle_of: Bundle, estimator: Any) -> None:
    frame = mixed_frame()
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), ["a", "b"]),
        (make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")), ["city"]),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["smoker", "count"]),
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["grade"]),
        ("drop", ["c"]),
    )
    model = make_pipeline(columns, estimator).fit(frame, TWO)
    bundle = bundle_of(model, frame)
    assert read_manifest(bundle).scorer in ("linear", "trees"), read_manifest(bundle).tried
    frame.loc[3, "city"] = "Aachen"
    check(bundle, model, frame, records(frame))


def test_histogram_boosting_splits_categories(bundle_of: Bundle) -> None:
    frame = mixed_frame()
    frame["city"] = pd.Categorical(frame["city"])
    frame["region"] = pd.Categorical(random.choice([f"r{number:02}" for number in range(40)], ROWS))
    model = HistGradientBoostingClassifier(max_iter=20, min_samples_leaf=3, categorical_features="from_dtype")
    model.fit(frame, TWO ^ frame["region"].isin([f"r{number:02}" for number in range(0, 40, 3)]))
    bundle = bundle_of(model, frame)
    assert read_manifest(bundle).scorer == "trees", read_manifest(bundle).tried
    check(bundle, model, frame, records(frame))


@pytest.mark.parametrize(
    "model",
    [GaussianNB(), make_pipeline(StandardScaler(), MLPClassifier((5,), max_iter=20))],
)
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_what_numpy_has_no_form_of_is_onnx(bundle_of: Bundle, model: Any) -> None:
    bundle = bundle_of(model.fit(NUMBERS, THREE), pd.DataFrame(NUMBERS, columns=COLUMNS))
    manifest = read_manifest(bundle)
    assert manifest.scorer == "onnx", manifest.tried
    assert "onnxruntime==" in (bundle / "requirements.lock").read_text()
    answer = asked(started(bundle), as_json(NUMBERS))
    assert answer["predictions"] == model.predict(NUMBERS).tolist()
    np.testing.assert_allclose(answer["probabilities"], model.predict_proba(NUMBERS), rtol=1e-6, atol=1e-9)


def test_a_conversion_that_differs_is_followed_by_the_next(bundle_of: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    right, wrong = GaussianNB().fit(NUMBERS, TWO), GaussianNB(var_smoothing=1.0).fit(NUMBERS, TWO)
    rows = pd.DataFrame(NUMBERS, columns=COLUMNS)
    tried = []

    def convert(model: Any, initial_types: Any, options: Any) -> Any:
        kind = type(initial_types[0][1])
        tried.append(kind)
        found = wrong if kind in differ else right
        return to_onnx(found, initial_types=[("rows", DoubleTensorType([None, 4]))], options={"zipmap": False})

    monkeypatch.setattr("skl2onnx.to_onnx", convert)
    differ = {DoubleTensorType}
    bundle = bundle_of(right, rows)
    assert (read_manifest(bundle).scorer, tried) == ("onnx", [DoubleTensorType, FloatTensorType])
    assert asked(started(bundle), as_json(NUMBERS))["predictions"] == right.predict(NUMBERS).tolist()
    differ.add(FloatTensorType)
    manifest = read_manifest(bundle_of(right, rows))
    assert manifest.scorer == "native"
    assert manifest.tried[-1]["reason"] == "its predictions differ on rows of the data"


@pytest.mark.parametrize("model", [KNeighborsClassifier(), make_pipeline(StandardScaler(), KNeighborsClassifier())])
def test_neighbours_are_left_to_scikit_learn_which_finds_them_sooner(bundle_of: Bundle, model: Any) -> None:
    manifest = read_manifest(bundle_of(model.fit(NUMBERS, TWO), pd.DataFrame(NUMBERS, columns=COLUMNS)))
    assert (manifest.scorer, manifest.tried[-1]["form"]) == ("native", "onnx")
    assert manifest.tried[-1]["reason"] == "scikit-learn finds nearest neighbours sooner"


def test_a_model_without_a_form_is_served_by_scikit_learn_and_inspect_says_why(
    bundle_of: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_pipeline(FunctionTransformer(np.log1p), KNeighborsClassifier()).fit(np.abs(NUMBERS), TWO)
    bundle = bundle_of(model, pd.DataFrame(np.abs(NUMBERS), columns=COLUMNS))
    manifest = read_manifest(bundle)
    assert manifest.scorer == "native"
    assert [tried["form"] for tried in manifest.tried] == list(FORMS)
    assert main(["inspect", str(bundle)]) == 0
    told = capsys.readouterr().out
    assert "scorer   native\n  linear: KNeighborsClassifier is no linear model\n" in told
    check(bundle, model, np.abs(NUMBERS), as_json(np.abs(NUMBERS)))


def test_a_form_that_differs_is_not_kept(bundle_of: Bundle, classifier: Any, numbers: pd.DataFrame) -> None:
    form = FORMS["linear"]

    def compile_another(model: Any, contract: Any) -> Any:
        other = pickle.loads(pickle.dumps(model))
        other[-1].intercept_ = np.add(other[-1].intercept_, [1e-4, 0, 0])
        return form.compile(other, contract)

    changed = type(form)(compile_another, form.load, form.path)
    with mock.patch.dict(FORMS, {"linear": changed}):
        tried = read_manifest(bundle_of(classifier, numbers)).tried
        with pytest.raises(BundleError, match="scorer linear: its probabilities differ on rows of the data"):
            bundle_of(classifier, numbers, scorer="linear")
    assert tried[0] == {"form": "linear", "equal": False, "reason": "its probabilities differ on rows of the data"}


BEYOND = NUMBERS[:, 0].max() + (NUMBERS[:, 0].max() - NUMBERS[:, 0].min()) / 2


class WrongAlone:
    """Another predictor, which is wrong for a row that is asked alone and ``is_unusual``."""

    def __init__(self, predictor: Predictor, is_unusual: Callable[[Any], bool]) -> None:
        self.predictor = predictor
        self.is_unusual = is_unusual
        self.cheap_rows = 0

    def start(self) -> None:
        self.predictor.start()

    def predict(self, table: Any, probabilities: bool) -> Outputs:
        outputs = self.predictor.predict(table, probabilities)
        is_wrong = len(table) == 1 and self.is_unusual(table[0])
        return {**outputs, "probabilities": outputs["probabilities"] + 1e-3} if is_wrong else outputs


@pytest.mark.parametrize(
    ("is_unusual", "where"),
    [
        (lambda row: (NUMBERS[200:] == row).all(axis=1).any(), "the data"),
        (lambda row: not (row == NUMBERS).all(axis=1).any(), "the data's values in other combinations"),
        (lambda row: not np.isin(row, NUMBERS).any() and row[0] < NUMBERS[:, 0].max(), "values near the data"),
        (lambda row: row[0] == BEYOND, "the edges of the contract's ranges and beyond"),
    ],
)
def test_a_form_that_differs_for_a_row_alone_is_not_kept(
    bundle_of: Bundle, is_unusual: Callable[[Any], bool], where: str
) -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(NUMBERS, TWO)
    form = FORMS["linear"]
    wrong = replace(form, load=lambda data, contract: WrongAlone(form.load(data, contract), is_unusual))
    with mock.patch.dict(FORMS, {"linear": wrong}, clear=True):
        manifest = read_manifest(bundle_of(model, pd.DataFrame(NUMBERS, columns=COLUMNS)))
    (tried,) = manifest.tried
    assert tried == {"form": "linear", "equal": False, "reason": f"its probabilities differ on rows of {where}"}


def test_the_form_can_be_chosen(bundle_of: Bundle, classifier: Any, numbers: pd.DataFrame) -> None:
    assert read_manifest(bundle_of(classifier, numbers, scorer="native")).scorer == "native"
    bundle = bundle_of(classifier, numbers)
    assert (load(bundle).form, load(bundle, "native").form) == ("linear", "native")
    rows = numbers.to_numpy().tolist()
    assert asked(load(bundle), rows)["predictions"] == asked(load(bundle, "native"), rows)["predictions"]
    with pytest.raises(BundleError, match="scorer trees: LogisticRegression is no tree"):
        bundle_of(classifier, numbers, scorer="trees")
    with pytest.raises(BundleError, match="scorer: expected native or linear, as it was built, found trees"):
        load(bundle, "trees")


def test_timings_of_all_equal_forms_are_in_the_manifest_if_they_are_asked_for(
    bundle_of: Bundle, classifier: Any, numbers: pd.DataFrame
) -> None:
    manifest = read_manifest(bundle_of(classifier, numbers, timings=True))
    native, linear, trees, onnx = manifest.tried
    assert [each["form"] for each in manifest.tried] == ["native", *FORMS]
    assert all(each["equal"] and each["microseconds"].keys() == {"1", "1000"} for each in (native, linear, onnx))
    assert (trees["equal"], "microseconds" in trees) == (False, False)
    assert 0 < linear["microseconds"]["1"] < native["microseconds"]["1"]
    taken = {each["form"]: overall(each["microseconds"]) for each in (native, linear, onnx)}
    assert manifest.scorer == min(taken, key=lambda form: taken[form])


class Slower:
    """Another predictor, which takes two milliseconds longer."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.cheap_rows = 0

    def start(self) -> None:
        self.predictor.start()

    def predict(self, table: Table, probabilities: bool) -> Outputs:
        time.sleep(0.002)
        return self.predictor.predict(table, probabilities)


@pytest.mark.parametrize(
    ("forms", "timings", "kept"),
    [
        (("slow", "linear"), False, "slow"),
        (("slow", "linear"), True, "linear"),
        (("linear", "slow"), True, "linear"),
        (("slow",), False, "slow"),
        (("slow",), True, "native"),
    ],
)
def test_with_timings_the_fastest_equal_form_is_kept_and_without_the_first(
    bundle_of: Bundle, classifier: Any, numbers: pd.DataFrame, forms: tuple[str, ...], timings: bool, kept: str
) -> None:
    linear = FORMS["linear"]
    slow = replace(linear, load=lambda data, contract: Slower(linear.load(data, contract)), path="compiled/slow.npz")
    with mock.patch.dict(FORMS, {name: {"linear": linear, "slow": slow}[name] for name in forms}, clear=True):
        manifest = read_manifest(bundle_of(classifier, numbers, timings=timings))
        assert read_manifest(bundle_of(classifier, numbers, timings=timings, scorer="slow")).scorer == "slow"
    assert manifest.scorer == kept
    assert [each["form"] for each in manifest.tried] == (["native", *forms] if timings else ["slow"])
    assert ("compiled/slow.npz" in {entry.path for entry in manifest.files}) == (kept == "slow")


def test_rows_around_the_data_reach_what_the_contract_allows(bundle_of: Bundle) -> None:
    frame = mixed_frame()
    model = make_pipeline(
        make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["city"]), (SimpleImputer(), ["a"])),
        LogisticRegression(),
    ).fit(frame, TWO)
    contract = load(bundle_of(model, frame)).contract
    columns = [np.array(frame[name].tolist(), dtype=object if name in ("city", "grade") else None) for name in frame]
    groups = dict(_around(contract, columns))
    assert sum(len(arrays[0]) for what, arrays in groups.items() if what != "the data") >= 10_000
    edges = groups["the edges of the contract's ranges and beyond"]
    assert np.nanmin(edges[0]) < contract.inputs[0].minimum
    assert np.nanmax(edges[0]) > contract.inputs[0].maximum
    assert np.isnan(edges[0]).any()
    assert not np.isin(groups["text that the data does not have"][4], frame["city"].unique()).all()
    # Columns of categories have all of them, those too that the data lacks.
    cities = Input("city", "string", categories=("Bonn", "Ulm"))
    closed = dict(_around(Contract(True, (cities,), ()), [np.array(["Bonn"], dtype=object)]))
    assert "text that the data does not have" not in closed
    assert set(closed["the edges of the contract's ranges and beyond"][0]) == {"Bonn", "Ulm"}


@pytest.mark.parametrize(
    ("expected", "found", "difference"),
    [
        ([1.0, np.nan], [1.0 + 1e-9, np.nan], pytest.approx(1e-9)),
        ([1.0], [1.0 + 1e-5], None),
        ([1.0], [np.nan], None),
        ([1.0], [[1.0]], None),
        (["a", "b"], ["a", "b"], 0.0),
        (["a", "b"], ["a", "c"], None),
        ([1, 2], [1, 3], None),
    ],
)
def test_labels_are_equal_and_numbers_within_tolerance(expected: Any, found: Any, difference: Any) -> None:
    tolerance = {"relative": 1e-6, "absolute": 1e-9}
    assert _difference(np.array(expected), np.array(found), tolerance) == difference


def test_scikit_learn_is_not_imported_where_it_is_not_needed(
    bundle_of: Bundle, classifier: Any, numbers: pd.DataFrame
) -> None:
    bundle = bundle_of(classifier, numbers)
    program = (
        "import sys; from pathlib import Path; from model_server.scoring.load import load\n"
        "from model_server.scoring.decode import decoder\n"
        f"scorer = load(Path({str(bundle)!r})); scorer.start()\n"
        "scorer.predict(decoder(scorer.contract)(b'{\"instances\": [[1, 2]]}'))\n"
        "print(sorted({'sklearn', 'pandas', 'scipy', 'joblib', 'onnxruntime'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_damaged_form_is_one_line(bundle: Path) -> None:
    path = bundle / "compiled" / "linear.npz"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(BundleError, match=r"compiled/linear.npz: expected sha256 \w+, found \w+"):
        load(bundle)


WORDS = make_pipeline(TfidfVectorizer(), LogisticRegression())
WORDS_AND_LETTERS = make_union(TfidfVectorizer(), make_pipeline(CountVectorizer(analyzer="char"), TfidfTransformer()))


@pytest.mark.parametrize(
    "model",
    [
        WORDS,
        GridSearchCV(WORDS, {"logisticregression__C": [1.0, 2.0]}, cv=2),
        make_pipeline(WORDS_AND_LETTERS, LogisticRegression()),
        make_pipeline(FunctionTransformer(), TfidfVectorizer(), LogisticRegression()).set_params(
            functiontransformer="passthrough"
        ),
        GridSearchCV(make_pipeline(WORDS_AND_LETTERS, SVC()), {"svc__C": [1.0, 2.0]}, cv=2),
    ],
    ids=["pipeline", "search", "union", "passthrough", "search of a union"],
)
def test_texts_are_a_series(bundle_of: Bundle, model: Any) -> None:
    texts = pd.DataFrame({"text": ["good day", "bad day", "good night", "bad night", "so good", "so bad"] * 4})
    model = clone(model).fit(texts["text"], texts["text"].str.contains("bad"))
    bundle = bundle_of(model, texts)
    assert load(bundle).contract.series
    check(bundle, model, texts["text"], [[text] for text in texts["text"]])
    assert asked(load(bundle), [{"text": "a bad thing"}])["predictions"] == [True]


def test_anomalies_have_scores(bundle_of: Bundle) -> None:
    model = IsolationForest(n_estimators=10, random_state=0).fit(NUMBERS)
    bundle = bundle_of(model, pd.DataFrame(NUMBERS, columns=COLUMNS))
    for form in (None, "native"):
        answer = asked(started(bundle, form), as_json(NUMBERS))
        assert answer["predictions"] == model.predict(NUMBERS).tolist()
        np.testing.assert_allclose(answer["scores"], model.decision_function(NUMBERS), rtol=1e-6, atol=1e-6)
    assert main(["verify", str(bundle), "--predict"]) == 0


def test_dates_are_columns(bundle_of: Bundle, tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"a": NUMBERS[:, 0], "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(ROWS), "D")}
    )
    frame["seen"] = frame["day"].where(frame.index % 7 != 0)
    (tmp_path / "calendar_features.py").write_text(
        "import pandas as pd\n\n\ndef since(frame):\n"
        "    days = frame.apply(lambda column: (column - pd.Timestamp('2020-01-01')).dt.days)\n"
        "    return days.fillna(-1).to_numpy(dtype=float)\n"
    )
    with mock.patch.object(sys, "path", [str(tmp_path), *sys.path]):
        calendar_features = importlib.import_module("calendar_features")
    columns = make_column_transformer(
        (FunctionTransformer(calendar_features.since), ["day", "seen"]), remainder="passthrough"
    )
    model = make_pipeline(columns, LinearRegression()).fit(frame, np.arange(ROWS))
    bundle = bundle_of(model, frame, modules=(tmp_path / "calendar_features.py",))
    day = [column.dtype for column in load(bundle, "native").contract.inputs]
    assert day[1] == day[2] == str(frame["day"].dtype)
    rows = [
        {"a": a, "day": day.isoformat(), "seen": None if pd.isna(seen) else seen.date().isoformat()}
        for a, day, seen in frame.itertuples(index=False)
    ]
    check(bundle, model, frame, rows)


OWN = """
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin


class Squares(TransformerMixin, BaseEstimator):
    def fit(self, rows, target=None):
        return self

    def transform(self, rows):
        return np.square(rows)
"""


@pytest.fixture
def own_model(tmp_path: Path) -> Iterator[tuple[Path, bytes, list[Any]]]:
    """A module with a class, the pickle of a model made of it, and the model's answers; the module is gone then."""
    path = tmp_path / "own_squares.py"
    path.write_text(OWN)
    with mock.patch.object(sys, "path", [str(tmp_path), *sys.path]):
        model = make_pipeline(importlib.import_module("own_squares").Squares(), LinearRegression())
    model.fit(NUMBERS, VALUE)
    # As text, where a module's name can be replaced by another.
    pickled, answers = pickle.dumps(model, protocol=0), model.predict(NUMBERS).tolist()
    del sys.modules["own_squares"]
    yield path, pickled, answers
    sys.modules.pop("own_squares", None)


def test_a_class_of_the_users_own_is_shipped(bundle_of: Bundle, own_model: tuple[Path, bytes, list[Any]]) -> None:
    path, pickled, answers = own_model
    frame = pd.DataFrame(NUMBERS, columns=COLUMNS)
    bundle = bundle_of(None, frame, pickled, modules=(path,))
    path.unlink()
    del sys.modules["own_squares"]
    assert read_manifest(bundle).scorer == "native"
    assert asked(load(bundle), as_json(NUMBERS))["predictions"] == pytest.approx(answers)
    (bundle / "modules" / "own_squares.py").write_text(OWN + "#")
    with pytest.raises(BundleError, match=r"modules/own_squares.py: expected \d+ bytes, found \d+"):
        load(bundle)


def test_a_class_that_is_not_shipped_is_a_clear_error(
    bundle_of: Bundle, own_model: tuple[Path, bytes, list[Any]], tmp_path: Path
) -> None:
    path, pickled, _ = own_model
    frame = pd.DataFrame(NUMBERS, columns=COLUMNS)
    message = "needs the module own_squares, which is not there: install it, or ship it with --module own_squares.py"
    with pytest.raises(BundleError, match=message):
        bundle_of(None, frame, pickled)
    with pytest.raises(BundleError, match="a class of it is defined in __main__: put it into a module"):
        bundle_of(None, frame, pickled.replace(b"own_squares", b"__main__"))
    with pytest.raises(BundleError, match=r"module modules/json.py: expected the name of a module of your own"):
        bundle_of(None, frame, pickled, modules=(path.rename(tmp_path / "json.py"),))


def test_skops_builds_only_types_that_are_trusted(bundle_of: Bundle) -> None:
    frame = pd.DataFrame(NUMBERS, columns=COLUMNS)
    model = make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=5)).fit(frame, TWO)
    data = skops.io.dumps(model)
    untrusted = tuple(skops.io.get_untrusted_types(data=data))
    assert untrusted
    with pytest.raises(BundleError, match=r"expected types that are trusted \(--trust TYPE\), found sklearn\."):
        bundle_of(None, frame, data, model_format="skops")
    bundle = bundle_of(None, frame, data, model_format="skops", trusted=untrusted)
    assert set(read_manifest(bundle).trusted) == set(untrusted)
    assert "skops==" in (bundle / "requirements.lock").read_text()
    for form in (None, "native"):
        assert asked(load(bundle, form), as_json(NUMBERS))["predictions"] == model.predict(frame).tolist()
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    del manifest["model"]["trusted"]
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"model.skops cannot be loaded: UntrustedTypesFoundException"):
        load(bundle, "native")


@pytest.mark.parametrize("form", ["linear", "native"])
def test_a_form_refuses_a_value_that_the_model_refuses(bundle_of: Bundle, form: str) -> None:
    frame = pd.DataFrame({"a": NUMBERS[:, 0], "smoker": True})
    encoded = make_column_transformer((OneHotEncoder(), ["smoker"]), remainder="passthrough")
    scorer = load(bundle_of(make_pipeline(encoded, LogisticRegression()).fit(frame, TWO), frame, scorer=form))
    asked(scorer, [[1.0, True]])
    with pytest.raises(RefusedError, match="the model refuses a value of these rows"):
        asked(scorer, [[1.0, False]])


def test_a_pickle_is_no_skops(bundle_of: Bundle, classifier: Any, numbers: pd.DataFrame) -> None:
    with pytest.raises(BundleError, match="cannot be loaded as skops: BadZipFile"):
        bundle_of(classifier, numbers, model_format="skops")


def test_onnx_is_served_without_a_pickle(bundle_of: Bundle) -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(NUMBERS, THREE)
    kind = DoubleTensorType([None, 4])
    data = to_onnx(model, initial_types=[("rows", kind)], options={"zipmap": False}).SerializeToString()
    bundle = bundle_of(None, pd.DataFrame(NUMBERS, columns=COLUMNS), data, model_format="onnx")
    locked = {line.partition("==")[0] for line in (bundle / "requirements.lock").read_text().split()}
    assert "onnxruntime" in locked
    assert not {"scikit-learn", "pandas"} & locked
    assert main(["verify", str(bundle), "--predict"]) == 0
    answer = asked(started(bundle), as_json(NUMBERS))
    assert answer["predictions"] == model.predict(NUMBERS).tolist()
    np.testing.assert_allclose(answer["probabilities"], model.predict_proba(NUMBERS), rtol=1e-6)


def test_what_onnx_refuses_is_the_fault_of_the_values(bundle_of: Bundle) -> None:
    cities = pd.DataFrame({"city": ["Bonn", "Köln"] * 10})
    model = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(cities.to_numpy(), [0, 1] * 10)
    kinds = [("city", StringTensorType([None, 1]))]
    data = to_onnx(model, initial_types=kinds, options={"zipmap": False}).SerializeToString()
    scorer = started(bundle_of(None, cities, data, model_format="onnx"))
    assert asked(scorer, [["Köln"]])["predictions"] == [1]
    with pytest.raises(RefusedError, match="the model refuses a value of these rows"):
        asked(scorer, [["Ulm"]])


def test_of_onnx_the_classes_are_known_where_the_data_shows_them_all(bundle_of: Bundle) -> None:
    model = GaussianNB().fit(NUMBERS, THREE)
    kind = DoubleTensorType([None, 4])
    data = to_onnx(model, initial_types=[("rows", kind)], options={"zipmap": False}).SerializeToString()
    for rows, classes in (NUMBERS, tuple(model.classes_.tolist())), (NUMBERS[:1], None):
        contract = load(bundle_of(None, pd.DataFrame(rows, columns=COLUMNS), data, model_format="onnx")).contract
        assert contract.outputs[0].classes == classes
        assert contract.outputs[1].classes is None


def of_numbers(count: int) -> bytes:
    """A model in ONNX of each row's mean, which adds up ``count`` numbers before it says so."""
    sizes = [helper.make_tensor("sizes", TensorProto.INT64, [2], [1, count])]
    nodes = [
        helper.make_node("ReduceMin", ["rows"], ["least"], axes=[0, 1], keepdims=1),
        helper.make_node("Tile", ["least", "sizes"], ["many"]),
        helper.make_node("ReduceMin", ["many"], ["one"], axes=[1], keepdims=0),
        helper.make_node("ReduceMean", ["rows"], ["means"], axes=[1], keepdims=0),
        helper.make_node("Max", ["means", "one"], ["mean"]),
    ]
    rows = helper.make_tensor_value_info("rows", TensorProto.DOUBLE, [None, 4])
    mean = helper.make_tensor_value_info("mean", TensorProto.DOUBLE, [None])
    graph = helper.make_graph(nodes, "of_numbers", [rows], [mean], sizes)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    found: bytes = model.SerializeToString()
    return found


@pytest.mark.parametrize(("count", "is_cheap"), [(10, True), (10_000_000, False)])
def test_a_row_that_takes_onnx_long_does_not_hold_up_others(bundle_of: Bundle, count: int, is_cheap: bool) -> None:
    rows = pd.DataFrame(NUMBERS[:20], columns=COLUMNS)
    scorer = load(bundle_of(None, rows, of_numbers(count), model_format="onnx"))
    scorer.start()
    assert scorer.cheap(1) == is_cheap
    assert not scorer.cheap(2)


def test_onnx_is_asked_for_a_row_of_any_contract_to_time_it(bundle_of: Bundle) -> None:
    model = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["city"]), (StandardScaler(), ["width"])), GaussianNB()
    )
    frame = pd.DataFrame({"city": ["Bonn", "Köln"] * 10, "width": np.arange(20.0)})
    scorer = started(bundle_of(model.fit(frame, [0, 1] * 10), frame, scorer="onnx"))
    assert (scorer.form, scorer.cheap(1)) == ("onnx", True)


def test_onnx_that_refuses_the_row_it_is_timed_with_is_not_taken_for_quick(bundle_of: Bundle) -> None:
    cities = pd.DataFrame({"city": ["Bonn", "Köln"] * 10})
    model = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(cities.to_numpy(), [0, 1] * 10)
    kinds = [("city", StringTensorType([None, 1]))]
    data = to_onnx(model, initial_types=kinds, options={"zipmap": False}).SerializeToString()
    assert not started(bundle_of(None, cities, data, model_format="onnx")).cheap(1)


LARGE = [[1e308, -1e308, 1e308, -1e308], [3e38, 3e38, -3e38, 1e39], [1e200, 1e200, 1e200, 1e200]]


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered")
@pytest.mark.parametrize(
    ("form", "model", "rows", "target"),
    [
        ("linear", make_pipeline(StandardScaler(), LogisticRegression()), NUMBERS, TWO),
        ("linear", make_pipeline(StandardScaler(), PCA(2), LogisticRegression()), NUMBERS, THREE),
        ("linear", make_pipeline(StandardScaler(), SelectKBest(k=1), LogisticRegression()), NUMBERS, TWO),
        ("linear", make_pipeline(StandardScaler(), MinMaxScaler(clip=True), LogisticRegression()), NUMBERS, TWO),
        ("linear", make_pipeline(MinMaxScaler(clip=True), LogisticRegression()), NUMBERS, TWO),
        ("linear", make_pipeline(SimpleImputer(), StandardScaler(), LinearSVC()), HOLES, THREE),
        ("trees", RandomForestClassifier(5, random_state=0), NUMBERS, THREE),
        ("trees", DecisionTreeRegressor(random_state=0), HOLES, VALUE),
        ("trees", GradientBoostingClassifier(n_estimators=5, random_state=0), NUMBERS, TWO),
        ("trees", make_pipeline(StandardScaler(), PCA(3), DecisionTreeClassifier(random_state=0)), NUMBERS, TWO),
        ("trees", HistGradientBoostingClassifier(max_iter=5), NUMBERS, TWO),
        ("onnx", make_pipeline(StandardScaler(), MLPClassifier([3], max_iter=20, random_state=0)), NUMBERS, THREE),
    ],
)
def test_what_scikit_learn_refuses_on_its_way_no_form_answers(
    bundle_of: Bundle, form: str, model: Any, rows: Any, target: Any
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(rows, target)
    scorer = started(bundle_of(model, pd.DataFrame(rows, columns=COLUMNS), scorer=form))
    for row in LARGE:
        try:
            model.predict([row])
        except ValueError:
            with pytest.raises(RefusedError, match="the model refuses a value of these rows"):
                scorer.predict(decoder(scorer.contract)(json.dumps({"instances": [row]}).encode()))


def test_what_a_step_makes_of_a_number_is_refused_and_not_classified(
    bundle_of: Bundle, start: Callable[..., Any]
) -> None:
    rows = pd.DataFrame(np.abs(NUMBERS), columns=COLUMNS)
    logarithm = FunctionTransformer(np.log1p, feature_names_out="one-to-one")
    model = make_pipeline(logarithm, StandardScaler(), LogisticRegression()).fit(rows, TWO)
    server = start(bundle_of(model, rows), SKLEARN_ASSUME_FINITE="1")
    for row, status in (([1, 1, 1, 1], 200), ([-5, 1, 1, 1], 422)):
        with server.connection() as connection:
            body = json.dumps({"instances": [row]})
            connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
            assert connection.getresponse().status == status
