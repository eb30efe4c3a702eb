# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a served model takes and gives as an OpenAPI document, with the bundle's golden rows as its examples.

https://spec.openapis.org/oas/v3.1.0. Schemas are exact where JSON Schema can say it: what they allow is answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from model_server.bundle.contract import DATES, FLOATS, INTEGERS, Contract, Input, Output
from model_server.scoring.tensors import DATATYPE, datatype
from model_server.web.protocol import Served

EXAMPLES = 3
"""How many golden rows an example has."""

Schema = dict[str, Any]


def openapi(served: Served) -> Schema:
    """The document. Its server is where it is read from, for a balancer may have it below a path of its own."""
    manifest, contract = served.scorer.manifest, served.scorer.contract
    model = f"/v2/models/{served.service}"
    versioned = f"{model}/versions/{manifest.version}"
    metadata, infer = _read("Model metadata", "Metadata"), _infer(contract, served.golden)
    server_ready = _read("Whether requests are taken", "Ready", not_now="Ready")
    ready = _read("Whether the model takes requests", "ModelReady", not_now="ModelReady")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": served.service,
            "version": manifest.version,
            "description": f"Model {manifest.name}, release {manifest.release}.",
        },
        "servers": [{"url": "."}],
        "tags": [
            {"name": "predict", "description": "Rows or records in, predictions out"},
            {"name": "open inference", "description": "The Open Inference Protocol, version 2"},
            {"name": "mlflow", "description": "As mlflow models serve answers"},
        ],
        "paths": {
            "/predict": {"post": {"tags": ["predict"], **_predict(contract, served.golden)}},
            f"{model}/infer": {"post": _open_inference("infer", infer)},
            f"{versioned}/infer": {"post": _open_inference("inferVersion", infer)},
            model: {"get": _open_inference("metadata", metadata)},
            versioned: {"get": _open_inference("metadataVersion", metadata)},
            f"{model}/ready": {"get": _open_inference("modelReady", ready)},
            f"{versioned}/ready": {"get": _open_inference("modelVersionReady", ready)},
            "/v2": {"get": _open_inference("server", _read("Server metadata", "Server"))},
            "/v2/health/live": {"get": _open_inference("live", _read("Whether the server runs", "Live"))},
            "/v2/health/ready": {"get": _open_inference("ready", server_ready)},
            "/invocations": {"post": {"tags": ["mlflow"], **_invocations(contract, served.golden)}},
        },
        "components": {"schemas": _schemas(contract)},
    }


def _schemas(contract: Contract) -> dict[str, Schema]:
    values = [_column(column) for column in contract.inputs]
    outputs = {output.name: {"type": "array", "items": _output(output)} for output in contract.outputs}
    text, tensors = {"type": "string"}, {"type": "array", "items": {"$ref": "#/components/schemas/Tensor"}}
    return {
        "Row": {
            "description": "A value for each column, in this order.",
            "type": "array",
            "prefixItems": values,
            "items": False,
            "minItems": len(values),
        },
        "Record": _object(dict(zip(contract.names, values, strict=True))),
        "Predictions": _object(outputs, required=["predictions"]),
        "Problem": {
            "description": "RFC 9457. Errors of rows have the members row, column, expected and found, too.",
            "type": "object",
            "properties": {"type": text, "title": text, "status": {"type": "integer"}, "detail": text},
            "required": ["type", "title", "status", "detail"],
        },
        "Tensor": {
            "type": "object",
            "properties": {
                "name": text,
                "datatype": text,
                "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1, "maxItems": 2},
                "data": {"type": "array"},
                "parameters": {"type": "object"},
            },
            "required": ["name", "datatype", "shape"],
        },
        "Inference": {
            "type": "object",
            "properties": {"model_name": text, "model_version": text, "id": text, "outputs": tensors},
            "required": ["model_name", "model_version", "outputs"],
        },
        "InferenceError": _object({"error": text}),
        "Metadata": {
            "type": "object",
            "properties": {
                "name": text,
                "versions": {"type": "array", "items": text},
                "platform": text,
                "inputs": {"type": "array"},
                "outputs": {"type": "array"},
            },
            "required": ["name", "platform", "inputs", "outputs"],
        },
        "Server": {
            "type": "object",
            "properties": {"name": text, "version": text, "extensions": {"type": "array", "items": text}},
            "required": ["name", "version", "extensions"],
        },
        "Ready": {"type": "object", "properties": {"ready": {"type": "boolean"}}, "required": ["ready"]},
        "ModelReady": {
            "type": "object",
            "properties": {"name": text, "ready": {"type": "boolean"}},
            "required": ["name", "ready"],
        },
        "Live": _object({"live": {"type": "boolean"}}),
        "InvocationError": _object({"error_code": text, "message": text}),
    }


def _column(column: Input) -> Schema:
    """The schema of a column's values."""
    schema: Schema
    if column.dtype in FLOATS:
        largest = float(np.finfo(column.dtype).max)
        schema = {"type": "number", "minimum": -largest, "maximum": largest}
    elif column.dtype in INTEGERS:
        limits = np.iinfo(column.dtype)
        schema = {"type": "integer", "minimum": int(limits.min), "maximum": int(limits.max)}
    elif column.categories is not None:
        schema = {"enum": [*column.categories, *([None] if column.nullable else [])]}
    elif column.dtype in DATES:
        schema = {"type": "string", "format": "date"}
    else:
        schema = {"type": "boolean" if column.dtype == "bool" else "string"}
    if column.nullable and "type" in schema:
        schema["type"] = [schema["type"], "null"]
    notes = ["or with a time, as in 2026-05-31T18:30:00"] if column.dtype in DATES else []
    if column.minimum is not None and column.maximum is not None:
        notes.append(f"in the training data {column.minimum:g} to {column.maximum:g}")
    if column.nullable:
        notes.append("null is a missing value")
    if notes:
        schema["description"] = "; ".join(notes)
    return {"title": column.name, **schema}


def _output(output: Output) -> Schema:
    """The schema of what an output has for one row."""
    if output.name == "predictions" and output.classes and len(output.shape) == 1:
        return {"enum": list(output.classes)}
    kind = {"FP32": "number", "FP64": "number", "BOOL": "boolean"}.get(DATATYPE.get(output.dtype, ""), "integer")
    # What is no number may be text or anything else that JSON has; a number that is none is null.
    schema: Schema = {"type": [kind, "null"]} if output.dtype in DATATYPE else {}
    for size in reversed(output.shape[1:]):
        schema = {"type": "array", "items": schema, "minItems": size, "maxItems": size}
    return schema


def _predict(contract: Contract, golden: Mapping[str, Any]) -> Schema:
    one_or_more: Schema = {"type": "array", "minItems": 1}
    rows = [{**one_or_more, "items": {"$ref": f"#/components/schemas/{name}"}} for name in ("Row", "Record")]
    properties: Schema = {"instances": {"anyOf": rows}}
    if contract.has_probabilities:
        properties["probabilities"] = {"type": "boolean", "default": False}
    given = list(golden.get("instances") or ())[:EXAMPLES]
    examples: dict[str, Schema] = {
        "rows": {"instances": given},
        "records": {"instances": [dict(zip(contract.names, row, strict=True)) for row in given]},
    }
    if contract.has_probabilities:
        examples["probabilities"] = {"instances": given[:1], "probabilities": True}
    answers = {"rows": {"predictions": (golden.get("predictions") or [])[:EXAMPLES]}}
    return {
        "operationId": "predict",
        "summary": "Predict",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": _object(properties, required=["instances"]),
                    **_examples(examples if given else {}),
                }
            },
        },
        "responses": {
            "200": _content("The predictions, one a row", "Predictions", **_examples(answers if given else {})),
            **{
                status: _content(why, "Problem", "application/problem+json")
                for status, why in {
                    **_REFUSED,
                    "422": "The rows do not fit the contract, or the model refuses them",
                }.items()
            },
        },
    }


def _infer(contract: Contract, golden: Mapping[str, Any]) -> Schema:
    text: Schema = {"type": "string"}
    parameters = {"type": ["object", "null"]}
    tensor = {
        "type": "object",
        "properties": {
            "name": text,
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1, "maxItems": 2},
            "datatype": {"enum": [*(dtype.upper() for dtype in INTEGERS), "FP16", "FP32", "FP64", "BOOL", "BYTES"]},
            "parameters": parameters,
            "data": {"type": "array"},
        },
        "required": ["name", "shape", "datatype", "data"],
    }
    output = {
        "type": "object",
        "properties": {"name": {"enum": [output.name for output in contract.outputs]}, "parameters": parameters},
        "required": ["name"],
    }
    schema = {
        "type": "object",
        "properties": {
            "id": {"type": ["string", "null"]},
            "parameters": parameters,
            "inputs": {"type": "array", "items": tensor, "minItems": 1},
            "outputs": {"type": ["array", "null"], "items": output},
        },
        "required": ["inputs"],
    }
    given = list(golden.get("instances") or ())[:EXAMPLES]
    columns = zip(contract.inputs, zip(*given, strict=True), strict=True) if given else ()
    examples = {
        "columns": {
            "inputs": [
                {"name": column.name, "shape": [len(given)], "datatype": datatype(column), "data": list(values)}
                for column, values in columns
            ]
        }
    }
    return {
        "summary": "Infer",
        "description": "The rows are a tensor of shape [rows] for each column, or one of shape [rows, columns].",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema, **_examples(examples if given else {})}},
        },
        "responses": {
            "200": _content("The outputs, all of them if none is named", "Inference"),
            **{status: _content(why, "InferenceError") for status, why in _REFUSED.items()},
        },
    }


def _invocations(contract: Contract, golden: Mapping[str, Any]) -> Schema:
    rows: Schema = {"type": "array", "minItems": 1}
    objects: Schema = {"type": "object"}
    split: Schema = {
        **objects,
        "properties": {"columns": {"type": ["array", "null"]}, "data": rows},
        "required": ["data"],
    }
    forms: dict[str, Schema] = {
        "dataframe_split": split,
        "dataframe_records": {**rows, "items": objects},
        "instances": rows,
        "inputs": {"type": ["array", "object"]},
    }
    given = list(golden.get("instances") or ())[:EXAMPLES]
    names = list(contract.names)
    examples = {
        "dataframe_split": {"dataframe_split": {"columns": names, "data": given}},
        "instances": {"instances": given},
    }
    schema = {"oneOf": [_object({form: found, "params": {}}, required=[form]) for form, found in forms.items()]}
    return {
        "operationId": "invocations",
        "summary": "Predict, as MLflow asks",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": schema, **_examples(examples if given else {})},
                "text/csv": {"schema": {"type": "string"}},
            },
        },
        "responses": {
            "200": {
                "description": "The predictions, one a row",
                "content": {
                    "application/json": {
                        "schema": _object(
                            {"predictions": {"$ref": "#/components/schemas/Predictions/properties/predictions"}}
                        )
                    }
                },
            },
            **{status: _content(why, "InvocationError") for status, why in _REFUSED.items()},
        },
    }


_REFUSED = {
    "400": "The body is not what is asked for",
    "401": "The server wants an API key",
    "413": "The body is too large, or has too many rows",
    "415": "The content type is another one",
    "429": "The server has too much to do; Retry-After says when to ask again",
    "504": "The client's own deadline has passed",
}


def _read(summary: str, schema: str, not_now: str = "") -> Schema:
    responses = {"200": _content(summary, schema)}
    if not_now:
        responses["503"] = _content("Not now", not_now)
    return {"summary": summary, "responses": responses}


def _open_inference(operation: str, found: Schema) -> Schema:
    return {"tags": ["open inference"], "operationId": operation, **found}


def _content(description: str, schema: str, content_type: str = "application/json", **more: Any) -> Schema:
    return {
        "description": description,
        "content": {content_type: {"schema": {"$ref": f"#/components/schemas/{schema}"}, **more}},
    }


def _object(properties: Schema, required: list[str] | None = None) -> Schema:
    """An object with these properties and no others, all of them if ``required`` does not say which."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
    }


def _examples(found: dict[str, Any]) -> Schema:
    return {"examples": {name: {"value": value} for name, value in found.items()}} if found else {}
