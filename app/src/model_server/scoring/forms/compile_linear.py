# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compiling linear models: a product, a sum and a link."""

from __future__ import annotations

from typing import Any

import numpy as np

from model_server.bundle.contract import Contract
from model_server.scoring.forms.compiler import NotCompiledError, Writer, estimator_of

_REGRESSORS = (
    "ARDRegression", "BayesianRidge", "ElasticNet", "ElasticNetCV", "HuberRegressor", "Lars", "LarsCV", "Lasso",
    "LassoCV", "LassoLars", "LassoLarsCV", "LassoLarsIC", "LinearRegression", "LinearSVR", "MultiTaskElasticNet",
    "MultiTaskElasticNetCV", "MultiTaskLasso", "MultiTaskLassoCV", "OrthogonalMatchingPursuit",
    "OrthogonalMatchingPursuitCV", "PassiveAggressiveRegressor", "QuantileRegressor", "Ridge", "RidgeCV",
    "SGDRegressor", "TheilSenRegressor",
)  # fmt: skip
_WITH_LINK = ("GammaRegressor", "PoissonRegressor", "TweedieRegressor")
_CLASSIFIERS = (
    "LinearDiscriminantAnalysis", "LinearSVC", "LogisticRegression", "LogisticRegressionCV",
    "PassiveAggressiveClassifier", "Perceptron", "RidgeClassifier", "RidgeClassifierCV", "SGDClassifier",
)  # fmt: skip


def compile_linear(model: Any, contract: Contract) -> bytes:
    """The program of a linear model; a NotCompiledError for any other."""
    steps, estimator = estimator_of(model)
    kind = type(estimator).__name__
    if kind not in _REGRESSORS + _WITH_LINK + _CLASSIFIERS:
        raise NotCompiledError(f"{kind} is no linear model")
    writer = Writer(contract)
    writer.transformers(steps)
    coefficients = np.asarray(estimator.coef_)
    writer.steps += [writer.operation("product", coefficients), writer.operation("add", estimator.intercept_)]
    if kind in _CLASSIFIERS:
        writer.outcome = _classes(writer, estimator, kind)
    else:
        link = type(estimator._base_loss.link).__name__ if kind in _WITH_LINK else "IdentityLink"
        writer.outcome = {"decide": {"IdentityLink": "raw", "LogLink": "exp"}[link], "link": "none"}
    return writer.written()


def _classes(writer: Writer, estimator: Any, kind: str) -> dict[str, Any]:
    classes = estimator.classes_
    two = len(classes) == 2
    if len(np.atleast_2d(estimator.coef_)) != (1 if two else len(classes)):
        raise NotCompiledError(f"{kind} with several labels a row has no such form")
    link = "logistic" if two else "one_versus_rest" if kind == "SGDClassifier" else "softmax"
    return {
        "decide": "positive" if two else "largest",
        "link": link if hasattr(estimator, "predict_proba") else "none",
        "classes": [writer.array(classes)],
    }
