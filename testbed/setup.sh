#!/bin/sh
# Makes the checkout's own environment: .venv with the packages of requirements.txt, and the link under .collections that
# lets Ansible find the collection here. Safe to run again; `make setup` calls it when something it reads has changed.
set -eu
cd "$(dirname "$0")/.."

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

suits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; }

python=
for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null && suits "$candidate"; then python=$candidate; break; fi
done
if [ -z "$python" ]; then
    echo "setup: expected Python 3.11 to 3.14 on the path, found $(python3 --version 2>&1 || true)" >&2
    exit 1
fi

if [ ! -x .venv/bin/python ] || ! suits .venv/bin/python; then
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        # A Python beside the distribution's own has a package of its own version.
        package=$python-venv
        echo "setup: installing the distribution's $package"
        as_root apt-get update -qq
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$package" >/dev/null
    fi
    echo "setup: making .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv
fi

echo "setup: installing the pinned packages of requirements.txt"
.venv/bin/python -m pip install --quiet --disable-pip-version-check "$(grep '^uv==' requirements.txt)"
# Compiled now, for Python may be told to keep nothing of what it compiles, and then each run of Ansible compiles all of it.
.venv/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python --requirement requirements.txt
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --editable app

mkdir -p .collections/ansible_collections/modelfleet
ln -sfn ../../.. .collections/ansible_collections/modelfleet/onprem
echo "setup: ready"
