# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The forms that a model can serve in: ``native``, as it was written, and those that it is compiled to.

What compiles runs where a bundle is built and looks at scikit-learn's objects; what serves does not import it.
"""
