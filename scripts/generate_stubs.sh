#!/usr/bin/env bash
# Regenerates client/tectum/v1 from proto/. With --check, only says whether the committed stubs are
# what proto/ gives; CI runs that. The generator is pinned (pyproject's dev extra): stubs refuse a
# runtime older than their generator, and robots carry old runtimes.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}

generate() {
    PATH="$(dirname "$python"):$PATH" "$python" -m grpc_tools.protoc --proto_path=proto \
        --python_out="$1" --grpc_python_out="$1" \
        --mypy_out="quiet:$1" --mypy_grpc_out="quiet:$1" \
        proto/tectum/v1/*.proto
    # Only the two files with services need grpc stubs; the others would be empty.
    for stub in "$1"/tectum/v1/*_pb2_grpc.py; do
        grep -q 'class .*Servicer' "$stub" || rm -f "$stub" "${stub}i"
    done
}

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
generate "$fresh"
printf '"""Generated from proto/ by `make proto`; never edited."""\n' > "$fresh/tectum/v1/__init__.py"

if [ "${1:-}" = --check ]; then
    if ! diff -r --exclude=__pycache__ "$fresh/tectum/v1" client/tectum/v1; then
        echo "client/tectum/v1 is not what proto/ gives: run 'make proto' and commit the result" >&2
        exit 1
    fi
else
    rm -rf client/tectum/v1
    cp -r "$fresh/tectum/v1" client/tectum/v1
    echo "client/tectum/v1 regenerated"
fi
