#!/usr/bin/python
# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell a canary that runs what to do."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lb_control
short_description: Pause, promote or abort a canary that runs
version_added: 0.1.0
author:
  - modelfleet contributors (@modelfleet)
description:
  - Leaves a word for the run that takes a canary through its steps, which looks every other second.
  - Fails if the service has no canary, so that no word is left for the next one, or if nobody watches it any more.
options:
  service:
    description: The service.
    type: str
    required: true
  word:
    description:
      - V(pause) holds the share that the canary has, V(go) lets it go on, V(promote) sends it all requests, V(abort)
        ends it.
    type: str
    required: true
    choices: [go, pause, promote, abort]
  checked:
    description: Fail if there is no canary, or nobody who watches it.
    type: bool
    default: true
  by:
    description: Who says it.
    type: str
    default: somebody
extends_documentation_fragment:
  - modelfleet.onprem.attributes
  - modelfleet.onprem.balancer
seealso:
  - module: modelfleet.onprem.lb_canary
  - module: modelfleet.onprem.lb_watch
"""

EXAMPLES = r"""
- name: Hold the share for a while
  modelfleet.onprem.lb_control:
    service: tumour
    word: pause
    by: kim
"""

RETURN = r"""
share:
  description: The share that the canary has, in hundredths of a percent.
  returned: success
  type: int
  sample: 500
is_watched:
  description: Whether a run takes the canary through its steps.
  returned: success
  type: bool
  sample: true
"""

from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelfleet.onprem.plugins.module_utils._control import (
    WORDS,
    Control,
    ControlFile,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._haproxy import (
    OPTIONS,
    Balancer,
    HaproxyError,
    Process,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._route import State, show_share

ARGUMENTS = {
    **OPTIONS,
    "service": {"type": "str", "required": True},
    "word": {"type": "str", "required": True, "choices": list(WORDS)},
    "checked": {"type": "bool", "default": True},
    "by": {"type": "str", "default": "somebody"},
}


def check_runs(params: dict[str, Any], state: State, control: ControlFile) -> None:
    """HaproxyError unless there is a canary, and somebody who will read the word."""
    service, word = params["service"], params["word"]
    share = state.share(service)
    if not share:
        raise HaproxyError(
            f"{service}: expected a canary to {word}, found none: all requests go to {state.slot(service) or 'nothing'}"
        )
    if control.is_watched():
        return
    seconds = control.seconds_unwatched()
    last = "never" if seconds is None else f"{seconds:.0f} s ago"
    raise HaproxyError(
        f"{service}: expected a run that watches the canary, which has {show_share(share)}, found it last watched "
        f"{last}: run abort.yml, or the same deploy again"
    )


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    params = module.params
    try:
        control = ControlFile(params["rollouts_dir"], params["service"])
        with Process(params["socket"]) as process:
            state = Balancer(process, params["state_dir"], params["master_socket"]).read()
        if params["checked"]:
            check_runs(params, state, control)
        before, after = control.read(), Control(params["word"], params["by"])
        changed = before.word != after.word
        is_watched = control.is_watched()
        if changed and not module.check_mode:
            control.write(after)
    except (ValueError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=changed,
        share=state.share(params["service"]),
        is_watched=is_watched,
        diff={"before": asdict(before), "after": asdict(after if changed else before)},
    )


if __name__ == "__main__":
    main()
