"""A model of vetiver under its own API. ``serve.py MODEL PORT``."""

import pickle
import sys
from pathlib import Path

import numpy
import uvicorn
import vetiver

if __name__ == "__main__":
    model = pickle.loads(Path(sys.argv[1]).read_bytes())
    served = vetiver.VetiverModel(model, "model", prototype_data=numpy.zeros((1, model.n_features_in_)))
    api = vetiver.VetiverAPI(served, check_prototype=True)
    uvicorn.run(api.app, host="127.0.0.1", port=int(sys.argv[2]), access_log=False, log_level="warning")
