"""The application of the tutorials, under gunicorn's threaded worker. ``serve.py MODEL PORT``."""

import os
import pickle
import sys
from pathlib import Path

from flask import Flask, Response, jsonify, request


def create_app(path: str) -> Flask:
    model = pickle.loads(Path(path).read_bytes())
    app = Flask(__name__)

    @app.post("/predict")
    def predict() -> Response:
        return jsonify(predictions=model.predict(request.get_json()["instances"]).tolist())

    return app


if __name__ == "__main__":
    os.chdir(Path(__file__).parent)
    bind = ["--bind", f"127.0.0.1:{sys.argv[2]}", "--worker-class", "gthread", "--workers", "1", "--threads", "4"]
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", *bind, f"serve:create_app({sys.argv[1]!r})"])
