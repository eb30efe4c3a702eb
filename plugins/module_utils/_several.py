# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module that does its work once, or for several services in one execution: its options and its result.

Executing a module costs more than the work of most, so a playbook executes each once a host, for all services there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

Params = Mapping[str, Any]
"""The options of one service, each of them there."""

Result = dict[str, Any]
"""What Ansible gets, for one service or as a whole; with ``failed`` and ``msg`` if it failed."""

Do = Callable[[Params], Result]
"""The work for one service. What can go wrong is a ``failure``, not an exception."""

SEVERAL = "several"


class OptionsError(ValueError):
    """Options that are not as they must be, in one line."""


@dataclass(frozen=True)
class Options:
    """The options of a module's work for one service.

    ``arguments`` are the options as AnsibleModule takes them, and ``rules`` what else it checks of them, such as
    ``required_if``. ``leading`` are those of which one is always given.
    """

    arguments: Mapping[str, Mapping[str, Any]]
    rules: Mapping[str, Any] = field(default_factory=dict)
    leading: Sequence[str] = ("service",)

    def of_module(self) -> dict[str, Any]:
        """What AnsibleModule is made with: every option, or ``several`` without any of them."""
        # Needed is only what needs no look at the others; read() does the rest, for one service as for each of several.
        once = {name: {**spec, "required": False} for name, spec in self.arguments.items()}
        return {
            "argument_spec": {**once, SEVERAL: {"type": "list", "elements": "dict"}},
            "mutually_exclusive": [[SEVERAL, name] for name in self.arguments],
            "required_one_of": [[*self.leading, SEVERAL]],
        }

    def read(self, params: Params) -> list[Params]:
        """The options of each service, in order; OptionsError names the one whose options are not as they must be."""
        if params[SEVERAL] is None:
            return [self._checked({name: params[name] for name in self.arguments}, "")]
        return [self._checked(entry, f"{SEVERAL}[{number}]: ") for number, entry in enumerate(params[SEVERAL])]

    def _checked(self, given: Params, where: str) -> Params:
        for name in given:
            if name not in self.arguments:
                raise OptionsError(f"{where}expected some of {', '.join(self.arguments)}, found {name!r}")
        # What is null is as if it were not given: neither the validator's defaults nor its rules see it so.
        known = {name: value for name, value in given.items() if value is not None}
        found = ArgumentSpecValidator(self.arguments, **self.rules).validate(known)
        if found.error_messages:
            raise OptionsError(where + "; ".join(map(str, found.error_messages)))
        options: Params = found.validated_parameters
        return options


def failure(error: Exception, **more: Any) -> Result:
    """The result of work that failed, with what ``more`` there is to say."""
    return {"failed": True, "changed": False, "msg": str(error), **more}


def in_turn(each: Sequence[Params], do: Do) -> list[Result]:
    """The results of ``do`` one after another, up to the first that failed."""
    results = []
    for params in each:
        results.append(do(params))
        if results[-1].get("failed"):
            break
    return results


def at_once(each: Sequence[Params], do: Do) -> list[Result]:
    """The results of ``do`` for all of ``each``, in their order, whatever fails.

    As many services are done at a time as the host has processors; what is asked for of one service keeps its order.
    """
    of_service: dict[str, list[int]] = {}
    for number, params in enumerate(each):
        of_service.setdefault(params["service"], []).append(number)

    def do_service(service: str) -> list[Result]:
        return [do(each[number]) for number in of_service[service]]

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        done = dict(zip(of_service, pool.map(do_service, of_service)))
    found = {number: result for service in done for number, result in zip(of_service[service], done[service])}
    return [found[number] for number in range(len(each))]


def run(
    options: Options, params: Params, do: Do, order: Callable[[Sequence[Params], Do], list[Result]] = in_turn
) -> Result:
    """The module's result, given its ``params``: that of ``do`` for one service, or of all that ``several`` asks for.

    Each result says its service, and its slot if it has one. That of several has them in order as ``several``; if one
    failed, it has all that the first of those says, too.
    """
    try:
        each = options.read(params)
    except OptionsError as error:
        return failure(error)
    results = order(each, lambda one: {**named(one), **do(one)})
    return results[0] if params[SEVERAL] is None else merge(results)


def merge(results: Sequence[Result]) -> Result:
    """One result out of those for several services. Their diffs become one list."""
    several = [{name: value for name, value in result.items() if name != "diff"} for result in results]
    failed: Result = next((result for result in several if result.get("failed")), {})
    diffs = [result["diff"] for result in results if "diff" in result]
    return {
        **failed,
        "changed": any(result["changed"] for result in results),
        SEVERAL: several,
        **({"diff": diffs} if diffs else {}),
    }


def named(params: Params) -> Result:
    """The service that a result is about, and its slot if it has one."""
    return {name: params[name] for name in ("service", "slot") if params.get(name) is not None}
