# shellcheck shell=bash
# Sourced by the launch scripts: makes .venv on a fresh machine, reuses it afterwards.
# Usage: . launch/install.sh EXTRAS   (such as "dev,raw")

ecgjax_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.13 python3.12 python3.11 python3 python; do
    command -v "${candidate:-/}" >/dev/null 2>&1 || continue
    if "$candidate" -c 'import sys; raise SystemExit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return 0
    fi
  done
  echo "ecgjax needs Python 3.11 or newer; install one, or name it: PYTHON=/path/to/python bash $0" >&2
  return 1
}

ecgjax_install() {
  local extras=$1 python wanted
  local project=".${extras:+[$extras]}"
  wanted="$extras $(cat pyproject.toml constraints.txt | cksum)"
  if [ "$(cat .venv/.ecgjax 2>/dev/null)" != "$wanted" ]; then
    python=$(ecgjax_python) || return 1
    echo "Installing $project into .venv (about a minute)" >&2
    if [ ! -x .venv/bin/python ]; then
      "$python" -m venv .venv || return 1
    fi
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
      --constraint constraints.txt --editable "$project" || return 1
    printf '%s' "$wanted" >.venv/.ecgjax
  fi
  PATH="$PWD/.venv/bin:$PATH"
  export PATH
}
