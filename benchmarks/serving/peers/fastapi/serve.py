"""The usual FastAPI application: a model of the body, and an endpoint. ``serve.py MODEL PORT``."""

import pickle
import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

model = pickle.loads(Path(sys.argv[1]).read_bytes())
app = FastAPI()


class Rows(BaseModel):
    instances: list[list[float]]


class Predictions(BaseModel):
    predictions: list[int]


@app.post("/threads/predict")
def predict_in_thread(rows: Rows) -> Predictions:
    return Predictions(predictions=model.predict(rows.instances).tolist())


@app.post("/loop/predict")
async def predict_in_loop(rows: Rows) -> Predictions:
    return Predictions(predictions=model.predict(rows.instances).tolist())


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), access_log=False, log_level="warning")
