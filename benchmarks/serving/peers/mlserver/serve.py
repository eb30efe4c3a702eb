"""MLServer with its scikit-learn runtime, in one process. ``serve.py MODEL PORT``."""

import json
import os
import sys
import tempfile
from pathlib import Path

port = int(sys.argv[2])
folder = Path(tempfile.mkdtemp(prefix="serving-mlserver-"))
# Its pool of processes is off: on one core it only costs.
settings = {
    "host": "127.0.0.1",
    "http_port": port,
    "grpc_port": port + 1,
    "metrics_port": port + 2,
    "parallel_workers": 0,
    "debug": False,
}
model = {
    "name": "model",
    "implementation": "mlserver_sklearn.SKLearnModel",
    "parameters": {"uri": sys.argv[1], "version": "1"},
}
(folder / "settings.json").write_text(json.dumps(settings))
(folder / "model-settings.json").write_text(json.dumps(model))
os.execv(sys.executable, [sys.executable, "-m", "mlserver.cli.main", "start", str(folder)])
