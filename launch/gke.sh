#!/usr/bin/env bash
# Trains on TPU slices of a GKE cluster that has JobSet, and evaluates in a second job beside it.
#
# Usage: VARIABLES bash launch/gke.sh [--dry] train | evaluate | status | down [flags of the verb]
#   train, evaluate   fill in launch/gke/<verb>.yaml and hand it to kubectl
#   status            both jobs and their pods
#   down              deletes both jobs; checkpoints and results stay in WORKDIR
#   --dry             prints the command and the manifest
#
# Set by environment variables:
#   NAME            of the run (required)
#   IMAGE           image that has ecgjax, such as launch/gke/Dockerfile makes, in a registry of yours (required)
#   ACCELERATOR     of the node pool, such as tpu-v5-lite-podslice or tpu-v6e-slice (required)
#   TOPOLOGY        of one slice, such as 4x4 (required)
#   CONFIG          training config in the image, FILE or FILE:ARG (required by train)
#   DATA            gs://BUCKET/DIRECTORY made by `ecgjax prepare`; mounted, never copied (required)
#   WORKDIR         gs:// directory of the run (required)
#   SLICES          slices, joined by the data centre's network (1)
#   CHIPS_PER_HOST  of the node pool's machines (4)
#   SPOT            yes: nodes that may be taken away; no (no)
#   SERVICE_ACCOUNT of Kubernetes, bound to one that reads DATA and writes WORKDIR (default)
#   NAMESPACE       (default)
#   QUEUE           Kueue's local queue, where the cluster has Kueue (none)
#   GRACE           seconds between SIGTERM and the end of a pod (120)
#   MAX_RESTARTS    interruptions after which it gives up (100)
#   EVALUATE_ACCELERATOR, EVALUATE_TOPOLOGY   of the evaluation: one host (ACCELERATOR, 2x2)
#   KUBECTL         the command, with --context if need be (kubectl)
#   HOST_NETWORK    yes: pods use the network of their hosts, faster between slices; no (no)
# shellcheck disable=SC2034,SC2153,SC2016
# (`fill` reads the variables that the manifests name.)
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/commands.sh

: "${SLICES:=1}" "${CHIPS_PER_HOST:=4}" "${SPOT:=no}" "${SERVICE_ACCOUNT:=default}" "${NAMESPACE:=default}"
: "${QUEUE:=}" "${HOST_NETWORK:=no}" "${GRACE:=120}" "${MAX_RESTARTS:=100}" "${EVALUATE_TOPOLOGY:=2x2}" "${KUBECTL:=kubectl}"
if [ "${1:-}" = --dry ]; then
  dry=yes
  shift
fi
verb=${1:-}
[ $# -eq 0 ] || shift

chips_of() { # NAME: how many chips a topology has
  if ! [[ ${!1} =~ ^[1-9][0-9]*(x[1-9][0-9]*){1,2}$ ]]; then
    say "gke.sh: $1 is '${!1}'; give a topology such as 4x4 or 2x2x4"
    exit 2
  fi
  echo $((${!1//x/*}))
}

fill() { # FILE [FLAGS...]: the manifest; what stands in quotes stays one string whatever it holds
  local file=$1 line done_part value flag
  shift
  while IFS= read -r line; do
    if [[ $line =~ ^(.*[^ ])\ +'# only '([A-Z_]+)$ ]]; then
      [ -n "${!BASH_REMATCH[2]}" ] || continue
      line=${BASH_REMATCH[1]}
    fi
    if [[ $line == *'- "${FLAGS}"' ]]; then
      for flag in "$@"; do printf '%s- "%s"\n' "${line%%-*}" "$(escaped "$flag")"; done
      continue
    fi
    done_part=
    while [[ $line =~ ^([^\$]*)\$\{([A-Z_]+)\}(.*)$ ]]; do
      value=$(escaped "${!BASH_REMATCH[2]}")
      done_part+=${BASH_REMATCH[1]}$value
      line=${BASH_REMATCH[3]}
    done
    printf '%s\n' "$done_part$line"
  done <"$file"
}
escaped() { # TEXT: for between YAML's double quotes
  local text=${1//\\/\\\\}
  printf '%s' "${text//\"/\\\"}"
}

manifest() { # VERB [FLAGS...]
  local verb=$1
  shift
  DATA_BUCKET=${DATA#gs://}
  DATA_DIRECTORY=${DATA_BUCKET#*/}
  DATA_BUCKET=${DATA_BUCKET%%/*}
  [ "$SPOT" = yes ] || SPOT=
  [ "$HOST_NETWORK" = yes ] || HOST_NETWORK=
  fill "launch/gke/$verb.yaml" "$@"
}

submit() { # VERB [FLAGS...]
  local name
  for name in IMAGE ACCELERATOR TOPOLOGY DATA WORKDIR; do need "$name" "see the top of launch/gke.sh"; done
  [ "$verb" != train ] || need CONFIG "the training config, such as configs/ecg_cmr.py:paper"
  for name in DATA WORKDIR; do
    if [[ ${!name} != gs://?*/?* ]]; then
      say "gke.sh: $name is '${!name}'; give gs://BUCKET/DIRECTORY: pods share no disk"
      exit 2
    fi
  done
  for name in SLICES CHIPS_PER_HOST GRACE MAX_RESTARTS; do number "$name"; done
  : "${EVALUATE_ACCELERATOR:=$ACCELERATOR}"
  CHIPS=$(chips_of TOPOLOGY)
  EVALUATE_CHIPS=$(chips_of EVALUATE_TOPOLOGY)
  HOSTS=$(((CHIPS + CHIPS_PER_HOST - 1) / CHIPS_PER_HOST))
  CHIPS=$((CHIPS < CHIPS_PER_HOST ? CHIPS : CHIPS_PER_HOST)) # Of one pod.
  if [ "$EVALUATE_CHIPS" -gt "$CHIPS_PER_HOST" ]; then
    say "gke.sh: EVALUATE_TOPOLOGY is $EVALUATE_TOPOLOGY, more than the $CHIPS_PER_HOST chips of one host"
    exit 2
  fi
  if [ "$dry" = yes ]; then
    run "${kubectl[@]}" apply --filename=-
    manifest "$@"
  else
    manifest "$@" | "${kubectl[@]}" apply --filename=-
  fi
}

read -ra kubectl <<<"$KUBECTL"
case $verb in
  train | evaluate)
    need NAME "a name for the run"
    label NAME
    submit "$verb" "$@"
    ;;
  status)
    need NAME "the name of the run"
    run "${kubectl[@]}" get jobset --namespace="$NAMESPACE" --ignore-not-found "$NAME" "$NAME-evaluate"
    run "${kubectl[@]}" get pods --namespace="$NAMESPACE" \
      --selector="jobset.sigs.k8s.io/jobset-name in ($NAME, $NAME-evaluate)"
    ;;
  down)
    need NAME "the name of the run"
    run "${kubectl[@]}" delete jobset --namespace="$NAMESPACE" --ignore-not-found "$NAME" "$NAME-evaluate"
    ;;
  *)
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
