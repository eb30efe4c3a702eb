"""Changes one byte of a bundle's model; and its manifest, too, so that they fit, if the bundle is ``resealed``."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from model_server.bundle.manifest import MANIFEST, read_manifest

bundle = Path(sys.argv[1])
model = bundle / read_manifest(bundle).model_path
data = bytearray(model.read_bytes())
data[len(data) // 2] ^= 1
model.write_bytes(data)
if bundle.name == "resealed":
    manifest = json.loads((bundle / MANIFEST).read_bytes())
    manifest["files"][model.name]["sha256"] = hashlib.sha256(data).hexdigest()
    (bundle / MANIFEST).write_text(json.dumps(manifest))
