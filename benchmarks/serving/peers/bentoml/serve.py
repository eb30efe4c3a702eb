"""A BentoML service, on one worker. ``serve.py MODEL PORT``."""

import os
import pickle
import sys
from pathlib import Path

import bentoml


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Classifier:
    def __init__(self) -> None:
        self.model = pickle.loads(Path(os.environ["MODEL"]).read_bytes())

    @bentoml.api
    def predict(self, instances: list[list[float]]) -> list[int]:
        return self.model.predict(instances).tolist()


if __name__ == "__main__":
    os.chdir(Path(__file__).parent)
    os.environ["MODEL"] = sys.argv[1]
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    where = ["--host", "127.0.0.1", "--port", sys.argv[2]]
    os.execv(sys.executable, [sys.executable, "-m", "bentoml", "serve", "serve:Classifier", *where])
