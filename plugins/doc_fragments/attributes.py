# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The attributes that the collection's modules document, in one place."""

from __future__ import annotations


class ModuleDocFragment:
    """Use ``modelfleet.onprem.attributes`` and say ``support: full`` or ``support: none`` for each in the module."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in check mode, and then tells what it would change without changing it.
  diff_mode:
    description: Returns what changed, or in check mode what would change, when diff mode is on.
"""

    ACTION = r"""
options: {}
attributes:
  action:
    description: Has an action plugin of the same name, so that a part of it runs on the controller.
"""
