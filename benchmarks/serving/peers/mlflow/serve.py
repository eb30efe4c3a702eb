"""A model saved by MLflow's scikit-learn flavour, under ``mlflow models serve``. ``serve.py MODEL PORT``."""

import os
import pickle
import sys
import tempfile
from pathlib import Path

import mlflow.sklearn

model = pickle.loads(Path(sys.argv[1]).read_bytes())
folder = Path(tempfile.mkdtemp(prefix="serving-mlflow-")) / "model"
# Without requirements to be found out: the environment is the one that this runs in.
mlflow.sklearn.save_model(model, str(folder), serialization_format="cloudpickle", pip_requirements=["scikit-learn"])
where = ["--host", "127.0.0.1", "--port", sys.argv[2], "--workers", "1", "--env-manager", "local"]
os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
os.environ["UVICORN_ACCESS_LOG"] = "false"
os.execv(sys.executable, [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(folder), *where])
