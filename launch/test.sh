#!/usr/bin/env bash
# Everything that must be green: style, the seven floors, the tests. Installs what it needs into .venv.
# Usage: bash launch/test.sh [pytest arguments]      (-m slow: the tests that take minutes, -m "": all)
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/install.sh
ecgjax_install "dev,raw,plan"

ruff format --check .
ruff check .
lint-imports
export OMP_NUM_THREADS=1 # Every core has a worker of its own; threads of BLAS would fight over them.
# In the order of their names: the few long tests of runs/ would come last by the number of tests, on one core.
python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not slow" "$@"
