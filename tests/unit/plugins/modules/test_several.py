# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules that take several services say of options that do not go together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.modules import model_load, model_probe, model_release, model_slot

MODULES = {
    model_load: "service",
    model_probe: "address",
    model_release: "service",
    model_slot: "service",
}


@pytest.mark.parametrize(("module", "leading"), MODULES.items(), ids=[module.__name__ for module in MODULES])
def test_either_one_service_or_several(run_module: Callable[..., Any], module: Any, leading: str) -> None:
    needed = "address, slot, several" if leading == "address" else "service, several"
    assert run_module(module, {})["msg"] == f"one of the following is required: {needed}"
    both = run_module(module, {leading: "127.0.0.1:1", "several": []})
    assert both["msg"] == f"parameters are mutually exclusive: several|{leading}"
    nothing = run_module(module, {"several": []})
    assert (nothing["changed"], nothing["several"]) == (False, [])


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (model_load, {"service": "tumour"}, "missing required arguments: release, slot"),
        (model_probe, {"slot": "blue"}, "missing parameter(s) required by 'slot': service"),
        (model_probe, {"service": "tumour"}, "one of the following is required: address, slot"),
        (model_release, {"service": "tumour"}, "state is present but all of the following are missing: env, release"),
        (model_slot, {"service": "tumour"}, "missing required arguments: slot"),
        (model_slot, {"service": "tumour", "slot": "red"}, "value of slot must be one of: blue, green, got: red"),
    ],
)
def test_what_one_service_needs_each_of_several_needs(
    run_module: Callable[..., Any], module: Any, options: dict[str, Any], message: str
) -> None:
    assert run_module(module, {"several": [options]})["msg"] == f"several[0]: {message}"
    if list(options) != ["service"] or module is not model_probe:
        assert run_module(module, options)["msg"] == message
