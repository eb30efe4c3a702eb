"""Whether the order in which forms are tried is that of their speed, among those that are proven equal.

Without `--timings`, `model-bundle build` measures no speed to choose by, so that the same inputs always give the same
bundle. It takes the first form that is equal, in a fixed order; here that order is measured.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pandas as pd
from model_server.bundle.build import build
from model_server.bundle.manifest import GOLDEN, BundleError
from model_server.bundle.prove import microseconds, overall
from model_server.scoring.decode import decode
from model_server.scoring.forms.registry import FORMS, NATIVE
from model_server.scoring.load import load
from threadpoolctl import threadpool_limits

from benchmarks.figures import Figures
from benchmarks.serving import models

FAMILIES = ("linear", "forest", "gradient_boosting", "hist_gradient_boosting", "neural_network")


def forms(figures: Figures) -> None:
    """For each family how many times as fast as the best other equal form the one is that ``build`` chooses.

    1 row and 1,000 rows count alike: the geometric mean of both ratios.
    """
    for name in FAMILIES:
        with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
            measured, unequal = _measure(name, Path(folder))
        chosen = next(form for form in (*FORMS, NATIVE) if form in measured)
        own = overall(measured[chosen])
        ratios = {form: round(overall(taken) / own, 2) for form, taken in measured.items() if form != chosen}
        figures.note(
            workload=f"forms_{name}", chosen=chosen, microseconds=measured, unequal=unequal, times_as_fast=ratios
        )
        figures.add(f"serving_form_of_{name}_over_others", min(ratios.values()), ">= 1")


def _measure(name: str, folder: Path) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """The microseconds of 1 and of 1,000 rows in each form that is equal, and why the others are not."""
    trained = models.train(name)
    rows = pd.read_csv(trained.data)
    measured, unequal = {}, {}
    for form in (*FORMS, NATIVE):
        bundle = folder / form
        try:
            # The golden rows are what is measured with, so as many as there are.
            build(
                trained.pickled,
                bundle,
                name="forms",
                version="1",
                rows=rows,
                targets=(models.TARGET,),
                scorer=form,
                golden_rows=len(rows),
            )
        except BundleError as error:
            unequal[form] = str(error).removeprefix(f"scorer {form}: ")
            continue
        scorer = load(bundle)
        scorer.start()
        golden = json.loads((bundle / GOLDEN).read_text())
        request = decode(json.dumps({"instances": golden["instances"]}).encode(), scorer.contract)
        measured[form] = microseconds(scorer.predictor, request.table, request.count)
    return measured, unequal
