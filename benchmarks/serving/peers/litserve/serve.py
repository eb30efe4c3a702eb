"""The application of LitServe's guide, on one worker. ``serve.py MODEL PORT``."""

import pickle
import sys
from pathlib import Path
from typing import Any

import litserve


class Classifier(litserve.LitAPI):
    def setup(self, _device: str) -> None:
        self.model = pickle.loads(Path(sys.argv[1]).read_bytes())

    def decode_request(self, request: dict[str, Any]) -> Any:
        return request["instances"]

    def predict(self, rows: Any) -> Any:
        return self.model.predict(rows)

    def encode_response(self, output: Any) -> dict[str, Any]:
        return {"predictions": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Classifier(), accelerator="cpu", workers_per_device=1, timeout=600)
    server.run(
        host="127.0.0.1", port=int(sys.argv[2]), num_api_servers=1, log_level="warning", generate_client_file=False
    )
