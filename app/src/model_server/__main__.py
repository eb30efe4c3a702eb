# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m model_server``: serve the bundle that the environment names."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path


def main() -> int:
    # Read once by libraries when they are imported, so this comes first. A worker's threads are the parallelism, and
    # decoding has checked already that numbers are finite.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("SKLEARN_ASSUME_FINITE", "1")

    from model_server.bundle.manifest import BundleError
    from model_server.web.settings import settings_from

    try:
        settings = settings_from(os.environ)
        _empty_metrics_dir(settings.metrics_dir)

        from model_server.scoring.load import load
        from model_server.web.gunicorn import Server

        scorer = load(settings.bundle)
    except (BundleError, OSError, ValueError) as error:
        print(f"model-server: {error}", file=sys.stderr)
        return 1
    print(
        f"model-server: serving {scorer.manifest.name} {scorer.manifest.release} as {settings.service}",
        file=sys.stderr,
    )
    Server(scorer, settings).run()
    return 0


def _empty_metrics_dir(folder: Path | None) -> None:
    """Have a folder for the workers' metrics, without those of an earlier run."""
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="model-server-"))
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
        atexit.register(_remove, folder, os.getpid())
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("*.db"):
        left.unlink()


def _remove(folder: Path, owner: int) -> None:
    # The workers, forked from the master, leave through the same exit.
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
