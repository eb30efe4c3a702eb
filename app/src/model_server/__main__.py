# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m model_server``: serve the bundle that the environment names."""

from __future__ import annotations

import json
import os
import sys

from model_server.libraries import set_up_libraries


def main() -> int:
    set_up_libraries()

    from model_server.bundle.manifest import GOLDEN, BundleError, read_verified
    from model_server.web.settings import settings_from

    try:
        settings = settings_from(os.environ)

        from model_server.scoring.load import load
        from model_server.web.gunicorn import Server
        from model_server.web.logs import LOG, log_as_json
        from model_server.web.protocol import Served

        form = None if settings.scorer == "auto" else settings.scorer
        scorer = load(settings.bundle, form, settings.digest)
        golden = json.loads(read_verified(settings.bundle, GOLDEN, scorer.manifest))
        served = Served(scorer, settings.service, golden=golden, max_rows=settings.max_rows, workers=settings.workers)
        server = Server(served, settings)
    except (BundleError, OSError, ValueError) as error:
        print(f"model-server: {error}", file=sys.stderr)
        return 1
    log_as_json()
    manifest = scorer.manifest
    what = {"service": settings.service, "model": manifest.name, "release": manifest.release, "scorer": scorer.form}
    LOG.info("serving", extra={"fields": what})
    server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
