# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The attributes that the collection's modules document, in one place."""

from __future__ import annotations


class ModuleDocFragment:
    """Use ``modelfleet.onprem.attributes`` where something is changed, ``attributes.info`` where nothing is.

    One with an action plugin adds ``attributes.action``. What a module says itself, such as ``details``, comes on top.
    """

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in check mode, and then tells what it would change without changing it.
    support: full
  diff_mode:
    description: Returns what changed, or in check mode what would change, when diff mode is on.
    support: full
"""

    INFO = r"""
options: {}
attributes:
  check_mode:
    description: Can run in check mode, and then tells what it would change without changing it.
    support: full
    details: It changes nothing in any mode.
  diff_mode:
    description: Returns what changed, or in check mode what would change, when diff mode is on.
    support: none
"""

    ACTION = r"""
options: {}
attributes:
  action:
    description: Has an action plugin of the same name, so that a part of it runs on the controller.
    support: full
"""
