#!/usr/bin/env bash
# Trains on a GKE cluster made by xpk, and evaluates in a second workload beside it.
#
# Usage: VARIABLES bash launch/xpk.sh [--dry] train | evaluate | down [flags of the verb]
#
# Set by environment variables:
#   PROJECT, ZONE, CLUSTER   as given to `xpk cluster create` (required)
#   NAME            of the workload (required)
#   IMAGE           image that has ecgjax, such as launch/gke/Dockerfile makes, in a registry of yours (required)
#   TYPE            such as v5litepod-16 or v6e-256 (required)
#   CONFIG          training config in the image, FILE or FILE:ARG (required by train)
#   DATA            directory made by `ecgjax prepare`, as pods see it: where STORAGE is mounted (required)
#   WORKDIR         gs:// directory of the run (required)
#   STORAGE         bucket mounted into the pods, by its name in `xpk storage attach` (none)
#   SLICES          (1)
#   PRIORITY        very-low, low, medium, high or very-high (medium)
#   GRACE           seconds between SIGTERM and the end of a pod (120)
#   MAX_RESTARTS    interruptions after which it gives up (100)
#   EVALUATE_TYPE   of the evaluation: one host (v5litepod-4)
#   XPK             the command (xpk)
# shellcheck disable=SC2153
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/commands.sh

: "${STORAGE:=}" "${SLICES:=1}" "${PRIORITY:=medium}" "${GRACE:=120}" "${MAX_RESTARTS:=100}"
: "${EVALUATE_TYPE:=v5litepod-4}" "${XPK:=xpk}"
if [ "${1:-}" = --dry ]; then
  dry=yes
  shift
fi
verb=${1:-}
[ $# -eq 0 ] || shift

check() {
  local name
  for name in PROJECT ZONE CLUSTER NAME; do need "$name" "see the top of launch/xpk.sh"; done
  label NAME
}
workload() { # NAME TYPE SLICES COMMAND...
  local name=$1 kind=$2 slices=$3 flags=()
  shift 3
  for name_of in IMAGE DATA WORKDIR; do need "$name_of" "see the top of launch/xpk.sh"; done
  for name_of in SLICES GRACE MAX_RESTARTS; do number "$name_of"; done
  flags=(--project="$PROJECT" --zone="$ZONE" --cluster="$CLUSTER" --workload="$name" --tpu-type="$kind"
    --num-slices="$slices" --docker-image="$IMAGE" --priority="$PRIORITY"
    --max-restarts="$MAX_RESTARTS" "--restart-on-exit-codes=75,76"
    --termination-grace-period-seconds="$GRACE")
  [ -z "$STORAGE" ] || flags+=(--storage="$STORAGE")
  # exec: xpk sends SIGTERM to the shell that reads this line, and the program must get it.
  run "$XPK" workload create "${flags[@]}" --command="exec $(quoted "$@")"
}

case $verb in
  train)
    check
    need TYPE "the TPU type, such as v5litepod-16"
    need CONFIG "the training config, such as configs/ecg_cmr.py:paper"
    workload "$NAME" "$TYPE" "$SLICES" python -m ecgjax train --distributed=gke --config="$CONFIG" \
      --config.data.directory="${DATA:-}" --workdir="${WORKDIR:-}" --config.mesh.slices="$SLICES" "$@"
    ;;
  evaluate)
    check
    workload "$NAME-evaluate" "$EVALUATE_TYPE" 1 python -m ecgjax evaluate --workdir="${WORKDIR:-}" \
      --data="${DATA:-}" --follow --timeout=86400 "$@"
    ;;
  down)
    check
    for name in "$NAME" "$NAME-evaluate"; do
      run "$XPK" workload delete --project="$PROJECT" --zone="$ZONE" --cluster="$CLUSTER" --workload="$name" --force
    done
    ;;
  *)
    sed -n '2,4s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
