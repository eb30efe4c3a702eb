# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m model_server.trial``: load what the environment names, answer its golden rows once, and say what it took.

It reads the settings that ``python -m model_server`` would serve with, and prints a JSON document in a line:
``python`` and ``packages``, each with what was ``expected`` and ``found``; ``environment`` and ``load``, why the one
does not fit or the other did not work, else null; ``seconds`` to load; ``rows`` answered; ``peak`` and ``answering``,
the bytes of memory of the whole process, and those of them that answering took. What is known of the environment is
printed in a line before that, too, in case that loading ends the process. With an older Python than the bundle's it is
tried all the same, for so would it be served; with what the server refuses to serve with it is not loaded, and has
neither ``load`` nor ``seconds``.

It is run in a sandbox, by who wants to know whether the model may be served: a pickle is a program, and may print, hang
or end the process itself.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from model_server.libraries import set_up_libraries


def main() -> NoReturn:
    # What the model prints must not be taken for the document.
    begun = time.perf_counter()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    set_up_libraries()
    from model_server.bundle.manifest import BundleError
    from model_server.scoring.errors import ScoringError
    from model_server.scoring.load import OtherEnvironmentError
    from model_server.web.settings import settings_from

    def tell() -> None:
        answers.write(json.dumps(document) + "\n")
        answers.flush()

    document: dict[str, Any] = {"environment": None, "load": None}
    try:
        settings = settings_from(os.environ)
        form = None if settings.scorer == "auto" else settings.scorer
        _try(settings.bundle, settings.digest, form, document, tell, begun)
    except OtherEnvironmentError as error:
        document["environment"] = "; ".join(filter(None, (document["environment"], str(error))))
    except (BundleError, ScoringError, MemoryError, ValueError) as error:
        document["load"] = str(error) or type(error).__name__
    document["peak"] = _memory("VmHWM")
    tell()
    # Nothing of the model runs any more: no thread of it is waited for, and none of its handlers is called.
    os._exit(0)


def _try(
    bundle: Path, digest: str, form: str | None, document: dict[str, Any], tell: Callable[[], None], begun: float
) -> None:
    """Write what is found into ``document``, as far as it goes, and ``tell`` it before anything is loaded.

    ``begun`` is when the process began.
    """
    from model_server.bundle.manifest import GOLDEN, read_verified, verify
    from model_server.scoring.decode import decoder
    from model_server.scoring.encode import encode
    from model_server.scoring.load import OtherEnvironmentError, load, read_pins

    manifest = verify(bundle, digest)
    found = f"{sys.version_info.major}.{sys.version_info.minor}"
    document["python"] = {"expected": manifest.python, "found": platform.python_version()}
    document["packages"] = {
        name: {"expected": expected, "found": _installed(name)}
        for name, expected in read_pins(bundle, manifest).items()
    }
    if _parts(found) < _parts(manifest.python):
        document["environment"] = f"Python: expected {manifest.python} or newer, found {found}"
    others = [
        f"{name}: expected {pin['expected']}, found {pin['found'] or 'none'} installed"
        for name, pin in document["packages"].items()
        if pin["found"] != pin["expected"]
    ]
    if others:
        raise OtherEnvironmentError("; ".join(others))
    tell()
    scorer = load(bundle, form, digest)
    scorer.start()
    document["seconds"] = round(time.perf_counter() - begun, 3)
    loaded = _memory("VmRSS")
    golden = json.loads(read_verified(bundle, GOLDEN, manifest))
    body = {"instances": golden["instances"], "probabilities": scorer.contract.has_probabilities}
    # Whether the answers are right is another question, put to every worker that serves.
    encode(scorer.predict(decoder(scorer.contract)(json.dumps(body).encode())))
    document["rows"] = len(golden["instances"])
    document["answering"] = max(0, _memory("VmHWM") - loaded)


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _parts(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _memory(name: str) -> int:
    """A figure of the process, in bytes, as proc(5) has it in kB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    return 0


if __name__ == "__main__":
    main()
