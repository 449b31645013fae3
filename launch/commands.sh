# Sourced by the launch scripts: variables that must be set, and commands that --dry prints instead of running.
# shellcheck shell=bash

dry=${dry:-no}

need() { # NAME WHAT: one clear line where a variable is not set
  [ -n "${!1:-}" ] && return
  echo "$(basename "$0"): set $1: $2" >&2
  exit 2
}

number() { # NAME: a variable that counts something
  [[ ${!1} =~ ^[1-9][0-9]*$ ]] && return
  echo "$(basename "$0"): $1 is '${!1}'; give a number from 1" >&2
  exit 2
}

label() { # NAME: a variable that Kubernetes makes names of pods from, with what it appends
  [[ ${!1} =~ ^[a-z]([-a-z0-9]{0,33}[a-z0-9])?$ ]] && return
  echo "$(basename "$0"): $1 is '${!1}'; give at most 35 small letters, digits and -, from a letter to no -" >&2
  exit 2
}

quoted() { # ARGUMENTS: one line that a shell reads back as the same arguments
  local line
  printf -v line '%q ' "$@"
  printf '%s\n' "${line% }"
}

run() { # COMMAND...
  if [ "$dry" = yes ]; then quoted "$@"; else "$@"; fi
}

say() { printf '%s\n' "$*" >&2; }
