# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# /// script
# requires-python = ">=3.11"
# dependencies = ["tritonclient[http]==2.73.0", "kserve==0.21.0"]
# ///
"""Ask a server with the clients that Triton and KServe publish: ``open_inference.py URL SERVICE ROWS``.

ROWS is JSON: ``columns``, ``rows``, ``datatypes``, and what the model itself says: ``predictions``, ``probabilities``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import kserve
import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

VERSION = "3"


def column(expected: dict[str, Any], place: int) -> tuple[str, str, np.ndarray[Any, Any]]:
    """Name, datatype and values of a column; a missing number is NaN."""
    name, datatype = expected["columns"][place], expected["datatypes"][place]
    values = [row[place] for row in expected["rows"]]
    dtype = object if datatype == "BYTES" else triton_to_np_dtype(datatype)
    return name, datatype, np.array([np.nan if value is None else value for value in values], dtype)


def same(found: Any, expected: list[Any]) -> None:
    found = [value.decode() if isinstance(value, bytes) else value for value in np.asarray(found).tolist()]
    assert np.shape(found) == np.shape(expected), (np.shape(found), np.shape(expected))
    if isinstance(expected[0], (str, bool)):
        assert found == expected, (found, expected)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def tables(expected: dict[str, Any]) -> list[tuple[str, np.ndarray[Any, Any]]]:
    """One tensor of rows and columns, as each datatype that holds them, of a model that takes numbers alone."""
    if set(expected["datatypes"]) != {"FP64"}:
        return []
    return [(datatype, np.array(expected["rows"], triton_to_np_dtype(datatype))) for datatype in ("FP64", "FP32")]


def refusal(ask: Callable[[], Any]) -> InferenceServerException:
    try:
        answer = ask()
    except InferenceServerException as error:
        return error
    raise AssertionError(f"expected an error, found {answer.get_response()}")


def ask_as_triton(address: str, service: str, expected: dict[str, Any]) -> None:
    with triton.InferenceServerClient(address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready(service)
        assert client.is_model_ready(service, VERSION)
        assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
        for version in ("", VERSION):
            metadata = client.get_model_metadata(service, version)
            assert [tensor["name"] for tensor in metadata["inputs"]] == expected["columns"]
            assert [tensor["datatype"] for tensor in metadata["inputs"]] == expected["datatypes"]
        width = len(expected["columns"])
        # What has a missing value cannot be sent as JSON by this client: rows without one, then all of them, binary.
        whole = [number for number, row in enumerate(expected["rows"]) if None not in row]
        for chosen, binary in ((whole, False), (whole, True), (range(len(expected["rows"])), True)):
            inputs = []
            for name, datatype, values in (column(expected, place) for place in range(width)):
                tensor = triton.InferInput(name, [len(chosen)], datatype)
                inputs.append(tensor.set_data_from_numpy(values[list(chosen)], binary_data=binary))
            for outputs in (None, ["probabilities"], ["predictions", "probabilities"]):
                asked = outputs and [triton.InferRequestedOutput(name, binary_data=binary) for name in outputs]
                found = client.infer(service, inputs, VERSION, asked, request_id="one", parameters={"anything": "else"})
                answer = found.get_response()
                assert (answer["id"], answer["model_name"], answer["model_version"]) == ("one", service, VERSION)
                assert [output["name"] for output in answer["outputs"]] == (outputs or ["predictions", "probabilities"])
                for name in outputs or ["predictions", "probabilities"]:
                    same(found.as_numpy(name), [expected[name][number] for number in chosen])
        for datatype, values in tables(expected):
            for version, binary in (("", True), (VERSION, False)):
                tensor = triton.InferInput("rows", list(values.shape), datatype)
                tensor.set_data_from_numpy(values, binary_data=binary)
                found = client.infer(service, [tensor], version)
                assert found.get_response()["model_version"] == VERSION
                for name in ("predictions", "probabilities"):
                    same(found.as_numpy(name), expected[name])
        for wrong, status, message in (
            (lambda: client.infer("other", inputs), "404", "not found"),
            (lambda: client.infer(service, inputs, "9"), "404", "not found"),
            (lambda: client.infer(service, inputs[1:]), "400", "is missing"),
            (lambda: client.infer(service, inputs, outputs=[triton.InferRequestedOutput("other")]), "400", "outputs: "),
        ):
            error = refusal(wrong)
            assert error.status() == status, error
            assert message in error.message(), error


async def ask_as_kserve(url: str, service: str, expected: dict[str, Any]) -> None:
    async with kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v2")) as client:
        assert await client.is_server_live(url)
        assert await client.is_server_ready(url)
        assert await client.is_model_ready(url, service)
        whole = [number for number, row in enumerate(expected["rows"]) if None not in row]
        for binary in (False, True):
            inputs = []
            for place in range(len(expected["columns"])):
                name, datatype, values = column(expected, place)
                tensor = kserve.InferInput(name, [len(whole)], datatype)
                tensor.set_data_from_numpy(values[whole], binary_data=binary)
                inputs.append(tensor)
            request = kserve.InferRequest(service, inputs, request_id="two", parameters={"binary_data_output": binary})
            found = await client.infer(url, request, model_name=service)
            assert found.id == "two"
            for output in found.outputs:
                same(output.as_numpy(), [expected[output.name][number] for number in whole])
        for datatype, values in tables(expected):
            # This client knows no versions: one is a part of the name in the path.
            for name, binary in ((service, True), (f"{service}/versions/{VERSION}", False)):
                tensor = kserve.InferInput("rows", list(values.shape), datatype)
                tensor.set_data_from_numpy(values, binary_data=binary)
                headers: dict[str, str] = {}
                request = kserve.InferRequest(service, [tensor])
                found = await client.infer(url, request, model_name=name, response_headers=headers)
                assert headers["x-model-version"] == VERSION
                for output in found.outputs:
                    same(output.as_numpy(), expected[output.name])
        request = kserve.InferRequest(service, inputs[1:])
        errors = await asyncio.gather(client.infer(url, request, model_name=service), return_exceptions=True)
        error = errors[0]
        assert isinstance(error, httpx.HTTPStatusError), error
        assert "is missing, '400" in str(error), error


def main(url: str, service: str, rows: str) -> None:
    expected = json.loads(Path(rows).read_text())
    ask_as_triton(url.removeprefix("http://"), service, expected)
    asyncio.run(ask_as_kserve(url, service, expected))
    print("as asked")


if __name__ == "__main__":
    main(*sys.argv[1:])
