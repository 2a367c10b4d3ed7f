#!/usr/bin/env bash
# Generates the stubs beside the .proto files. With --check it only says whether the committed ones are up to date.
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
out=sdk
if [ "${1:-}" = --check ]; then out=$(mktemp -d); trap 'rm -rf "$out"' EXIT; fi
PATH="$PWD/.venv/bin:$PATH" $python -m grpc_tools.protoc -I sdk --python_out="$out" --grpc_python_out="$out" \
  --mypy_out="quiet:$out" --mypy_grpc_out="quiet:$out" sdk/whimbrel/wire/v1/*.proto
if [ "$out" != sdk ]; then
  diff -r -x '*.proto' -x __init__.py -x __pycache__ sdk/whimbrel/wire/v1 "$out/whimbrel/wire/v1" \
    || { echo "stubs are not up to date: run make proto" >&2; exit 1; }
fi
