# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that the modules of the balancer share."""

from __future__ import annotations


class ModuleDocFragment:
    """Use ``modelfleet.onprem.balancer`` in a module that speaks to HAProxy."""

    DOCUMENTATION = r"""
options:
  socket:
    description: The stats socket of HAProxy, with the level C(admin).
    type: path
    default: /run/haproxy/admin.sock
  master_socket:
    description:
      - The socket of HAProxy's master process. Processes that a reload has replaced are reached through it, for they
        serve the connections they hold until these end.
      - If there is none, only the process that takes connections now is looked at.
    type: path
    default: /run/haproxy-master.sock
  state_dir:
    description:
      - The folder of what HAProxy reads when it starts, which is C(active.map) and C(canary.map), and of
        C(releases.json).
    type: path
    default: /var/lib/modelfleet/lb
  rollouts_dir:
    description: The folder of the journal of rollouts, and of what an operator tells a canary.
    type: path
    default: /var/lib/modelfleet/rollouts
"""
