#!/usr/bin/env bash
# Runs the benchmarks, each of which prints its table.
#
# Usage: bash launch/bench.sh [--dry] [--list] [NAME...]
#   NAME    those of tests/benchmarks/NAME.py; all without one
#   --list  prints the names with what each shows
#   --dry   prints what would run
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/commands.sh

list=no names=()
for argument; do
  case $argument in
    --list) list=yes ;;
    --dry) dry=yes ;;
    -*) say "bench.sh: unknown argument $argument" && exit 2 ;;
    *) names+=("$argument") ;;
  esac
done
if [ ${#names[@]} -eq 0 ]; then
  for file in tests/benchmarks/[!_]*.py; do
    [ ! -e "$file" ] || names+=("$(basename "$file" .py)")
  done
fi
[ ${#names[@]} -gt 0 ] || { say "bench.sh: tests/benchmarks holds no benchmark" && exit 2; }
for name in "${names[@]}"; do
  [ -f "tests/benchmarks/$name.py" ] || { say "bench.sh: no benchmark $name; see --list" && exit 2; }
done

if [ "$list" = yes ]; then
  for name in "${names[@]}"; do
    printf '%s: %s\n' "$name" "$(sed -n '1s/^"""\([^"]*\).*/\1/p' "tests/benchmarks/$name.py")"
  done
  exit
fi
if [ "$dry" != yes ]; then
  . launch/install.sh
  ecgjax_install "dev,raw,plan"
fi
for name in "${names[@]}"; do run env PYTHONPATH=. python "tests/benchmarks/$name.py"; done
