# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The option of the modules that do their work for several services in one execution."""

from __future__ import annotations


class ModuleDocFragment:
    """Use ``modelfleet.onprem.several`` in a module whose options ``_several.Options`` reads."""

    DOCUMENTATION = r"""
options:
  several:
    description:
      - The options above, once for each of several services, in the order in which they are to be done.
      - Excludes the other options.
    type: list
    elements: dict
"""
