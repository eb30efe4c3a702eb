from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from testbed import image, vm

DEB822 = """\
# comment
Types: deb
# https://archive.example/2025
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
"""
ONE_LINE = """\
deb [signed-by=/usr/share/keyrings/x.gpg arch=amd64] http://other.example/debian bookworm main contrib
# deb http://commented.example/debian bookworm main
deb-src http://sources.example/debian bookworm main
deb http://other.example/debian-security bookworm-security main
"""
FOREIGN = "deb https://packages.example.org/apt cloud-sdk-bookworm main\n"


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        ([DEB822], ("http://mirror.example/debian", "http://mirror.example/debian-security")),
        ([FOREIGN, ONE_LINE], ("http://other.example/debian", "http://other.example/debian-security")),
        ([FOREIGN], None),
        ([DEB822.split("\n\n")[0]], None),
        ([DEB822.replace("Types: deb\n", "Types: deb-src\n")], None),
        ([], None),
    ],
)
def test_packages_come_from_where_this_machine_gets_them(sources: list[str], found: tuple[str, str] | None) -> None:
    assert image.mirrors("bookworm", sources) == found


def test_another_recipe_has_another_digest() -> None:
    recipe = image.recipe("bookworm")
    others = [
        image.recipe("trixie"),
        vm.recipe("bookworm"),
        replace(recipe, packages=(*recipe.packages, "git")),
        replace(recipe, hooks=recipe.hooks[1:]),
    ]
    assert image.recipe("bookworm").digest == recipe.digest
    assert len({recipe.digest, *(other.digest for other in others)}) == 5


@pytest.mark.parametrize("content", ["plain\n", "100% $HOME `id` \\ \"two\" 'one'\n\tand a tab", image._INIT])
def test_a_hook_writes_exactly_what_it_is_given(tmp_path: Path, content: str) -> None:
    (tmp_path / "etc").mkdir()
    subprocess.run(["sh", "-c", image.write_hook("/etc/file", content, "0755"), "sh", str(tmp_path)], check=True)
    written = tmp_path / "etc" / "file"
    assert written.read_text() == content
    assert written.stat().st_mode & 0o777 == 0o755


def test_the_first_process_of_a_container_is_a_valid_script(tmp_path: Path) -> None:
    script = tmp_path / "init"
    script.write_text(image._INIT)
    subprocess.run(["sh", "-n", str(script)], check=True)
