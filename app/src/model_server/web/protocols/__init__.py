# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The protocols that a served model speaks. The first one's errors are those of paths that no protocol has."""

from model_server.web.protocol import Protocol
from model_server.web.protocols.documentation import DOCUMENTATION
from model_server.web.protocols.mlflow import MLFLOW
from model_server.web.protocols.open_inference import OPEN_INFERENCE
from model_server.web.protocols.predict import PREDICT

PROTOCOLS: tuple[Protocol, ...] = (PREDICT, OPEN_INFERENCE, MLFLOW, DOCUMENTATION)
