# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Environments out of wheels that are made on the spot, and what a model server imports of real packages."""

from __future__ import annotations

import contextlib
import http.client
import inspect
import json
import os
import pickle
import py_compile
import re
import socket
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils import _install
from model_server.bundle.build import build
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

PACKAGES = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
PYTHON = [sys.executable, "-I", "-S", "-c", inspect.getsource(_install)]
DEMO = {
    "demo/__init__.py": "",
    "demo/say.py": "import sys\n\n\nclass Say:\n    @staticmethod\n    def where():\n        print(sys.prefix)\n",
    "demo/tests/test_say.py": "",
    "demo/old.py": "print 'hello'\n",
    "demo/helper": "#!/bin/sh\n",
    "demo/table.csv": "1,2\n",
    "demo-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n",
    "demo-1.0.dist-info/entry_points.txt": "[console_scripts]\nDemo-Where = demo.say:Say.where\n[x]\ny = demo:z\n",
    "demo-1.0.data/purelib/pure.py": "",
    "demo-1.0.data/platlib/plat.py": "",
    "demo-1.0.data/scripts/demo-script": "#!python\nimport demo.say\n\ndemo.say.Say.where()\n",
    "demo-1.0.data/scripts/demo-shell": "#!/bin/sh\necho hello\n",
    "demo-1.0.data/data/share/demo.txt": "demo\n",
    "demo-1.0.data/headers/demo.h": "",
}


@pytest.fixture
def make_wheel(tmp_path: Path) -> Callable[..., Path]:
    """A wheel with the files given; those without a suffix are programs."""

    def make(files: Mapping[str, str], name: str = "demo-1.0-py3-none-any.whl") -> Path:
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, text in files.items():
                entry = zipfile.ZipInfo(path)
                entry.external_attr = (0o100644 if "." in Path(path).name else 0o100755) << 16
                archive.writestr(entry, text)
        return tmp_path / name

    return make


@pytest.fixture
def env(make_wheel: Callable[..., Path], tmp_path: Path) -> Path:
    """An environment of one package, moved after it was made."""
    assert _run(tmp_path / "partial", make_wheel(DEMO)) == (0, "")
    return (tmp_path / "partial").rename(tmp_path / "env")


def _run(env: Path, *wheels: Path) -> tuple[int, str]:
    done = subprocess.run([*PYTHON, str(env), *map(str, wheels)], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def _output(*command: Path | str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_packages_are_found_by_the_environments_python_alone(env: Path) -> None:
    assert _output(env / "bin/python", "-I", "-c", "import demo.say; demo.say.Say.where()") == str(env)
    assert _output(env / "bin/python", "-I", "-c", "import importlib.metadata as m; print(m.version('demo'))") == "1.0"


@pytest.mark.parametrize("program", ["Demo-Where", "demo-script"])
def test_programs_run_where_the_environment_is_now(env: Path, program: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(env / "bin" / program)
    assert _output(env / "bin" / program) == _output(tmp_path / "link") == str(env)


def test_a_program_that_is_no_python_stays_as_it_is(env: Path) -> None:
    assert _output(env / "bin/demo-shell") == "hello"


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        (f"{PACKAGES}/demo/table.csv", 0o644),
        (f"{PACKAGES}/demo/helper", 0o755),
        (f"{PACKAGES}/pure.py", 0o644),
        (f"{PACKAGES}/plat.py", 0o644),
        ("share/demo.txt", 0o644),
        (f"include/site/{PACKAGES.split('/')[1]}/demo/demo.h", 0o644),
    ],
)
def test_files_go_where_their_kind_goes(env: Path, path: str, mode: int) -> None:
    assert (env / path).stat().st_mode & 0o777 == mode


def test_byte_code_is_what_python_writes_and_none_for_what_is_not_served(env: Path, tmp_path: Path) -> None:
    found = {path.name.split(".")[0]: path for path in (env / PACKAGES).rglob("*.pyc")}
    assert set(found) == {"__init__", "say", "pure", "plat"}
    source = tmp_path / "partial" / PACKAGES / "demo/say.py"
    expected = py_compile.compile(
        str(env / PACKAGES / "demo/say.py"),
        cfile=str(tmp_path / "say.pyc"),
        dfile=str(source),
        invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP,
    )
    assert found["say"].read_bytes() == Path(str(expected)).read_bytes()


def test_of_two_wheels_with_one_file_the_later_is_taken(make_wheel: Callable[..., Path], tmp_path: Path) -> None:
    wheels = [make_wheel({"shared.py": f"by = {name!r}\n"}, f"{name}-1-py3-none-any.whl") for name in ("a", "b")]
    assert _run(tmp_path / "env", *wheels) == (0, "")
    assert _output(tmp_path / "env/bin/python", "-I", "-c", "import shared; print(shared.by)") == "b"


@pytest.mark.parametrize(
    ("workers", "expected"), [(1, [[0, 1, 2, 3]]), (2, [[0, 3], [1, 2]]), (5, [[0], [1], [2], [3], []])]
)
def test_the_work_is_divided_evenly(workers: int, expected: list[list[int]]) -> None:
    assert _install.shares([9, 6, 5, 2], workers) == expected


@pytest.mark.parametrize("name", ["../out.py", "/out.py", "x-1.data/data/../../out", "x-1.data/other/file"])
def test_a_file_outside_of_the_environment_is_refused(
    make_wheel: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    status, said = _run(tmp_path / "env", make_wheel({name: ""}))
    assert status == 1
    assert set(said.splitlines()) == {f"expected the name of a file in an environment, found {name}"}


def test_what_is_not_a_wheel_is_named(tmp_path: Path) -> None:
    (tmp_path / "demo-1.0-py3-none-any.whl").write_text("no wheel")
    status, said = _run(tmp_path / "env", tmp_path / "demo-1.0-py3-none-any.whl")
    assert status == 1
    assert "demo-1.0-py3-none-any.whl: expected a wheel, found: File is not a zip file" in said


def test_a_damaged_wheel_is_named(make_wheel: Callable[..., Path], tmp_path: Path) -> None:
    wheel = make_wheel({"demo.py": "answer = 42\n"})
    content = wheel.read_bytes()
    wheel.write_bytes(content.replace(content[40:46], b"\xff" * 6, 1))
    status, said = _run(tmp_path / "env", wheel)
    assert status == 1
    assert f"{wheel}: expected a whole wheel, found: " in said


EVERY_ESTIMATOR = """
import importlib, pkgutil, sklearn
for module in pkgutil.iter_modules(sklearn.__path__, "sklearn."):
    if module.name not in ("sklearn.conftest", "sklearn.externals", "sklearn.tests"):
        importlib.import_module(module.name)
"""


@pytest.fixture
def served(tmp_path: Path) -> str:
    """What a server wrote that was asked for a prediction, with a line for each module that it imported."""
    # A model that takes a DataFrame and has one inside: the longer way through scikit-learn.
    rows = pd.DataFrame({"width": np.linspace(0, 1, 20), "city": ["Bonn", "Köln"] * 10})
    columns = make_column_transformer((OneHotEncoder(sparse_output=False), ["city"]), remainder="passthrough")
    model = make_pipeline(columns.set_output(transform="pandas"), RandomForestClassifier(3)).fit(rows, rows["city"])
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
    build(tmp_path / "model.pkl", tmp_path / "bundle", name="tiny", version="1", rows=rows)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    bundle, address = str(tmp_path / "bundle"), f"127.0.0.1:{port}"
    settings = {"MODEL_BUNDLE": bundle, "MODEL_SERVICE": "tiny", "BIND": address, "SCORER": "native"}
    command = [sys.executable, "-X", "importtime", "-m", "model_server"]
    log = tmp_path / "log"
    with log.open("wb") as stream:
        server = subprocess.Popen(command, env={**os.environ, **settings, "TMPDIR": str(tmp_path)}, stderr=stream)
    try:
        body = json.dumps({"instances": [{"width": 0.5, "city": "Bonn"}]})
        deadline = time.monotonic() + 60
        while not (answer := _ask(port, body)) and server.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        assert answer == {"predictions": ["Bonn"]}, log.read_text()
    finally:
        server.terminate()
        server.wait(30)
    return log.read_text()


def _ask(port: int, body: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection), contextlib.suppress(ConnectionRefusedError):
        connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
        return json.loads(connection.getresponse().read())
    return None


def _sources(log: str) -> set[str]:
    """The files below site-packages of the modules in the lines that ``-X importtime`` writes."""
    folder = Path(sysconfig.get_path("purelib"))
    modules = re.findall(r"^import time: .*\| +(\S+)$", log, re.MULTILINE)
    paths = {
        path for name in modules for path in (f"{name.replace('.', '/')}.py", f"{name.replace('.', '/')}/__init__.py")
    }
    return {path for path in paths if (folder / path).is_file()}


def test_all_that_a_server_imports_has_byte_code(served: str) -> None:
    sources = _sources(served)
    assert {"gunicorn/workers/gasgi.py", "sklearn/ensemble/_forest.py", "scipy/stats/__init__.py"} <= sources
    assert [path for path in sources if not _install.is_compiled(path)] == []


def test_all_that_any_estimator_imports_has_byte_code() -> None:
    command = [sys.executable, "-X", "importtime", "-c", EVERY_ESTIMATOR]
    sources = _sources(subprocess.run(command, capture_output=True, text=True, check=True).stderr)
    assert {"sklearn/svm/_classes.py", "sklearn/neural_network/_multilayer_perceptron.py"} <= sources
    assert [path for path in sources if not _install.is_compiled(path)] == []
