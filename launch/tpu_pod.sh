#!/usr/bin/env bash
# Trains on a Cloud TPU slice from a laptop: creates or reuses it, installs the current commit on every worker, trains,
# and where the slice is preempted creates it again and goes on. Evaluation runs on a small TPU of its own.
#
# Usage: VARIABLES bash launch/tpu_pod.sh [--dry] up | install | train | evaluate | status | down [flags of train]
#   up        creates the slice and waits until it is there; a slice that is there is used
#   install   copies the current commit and the data to every worker and installs ecgjax[tpu]
#   train     up, install, train to the end, across preemptions; Ctrl-C stops watching, not training: run it again. What
#             has ended is started again, with the commit that is current then
#   evaluate  the same with `ecgjax evaluate --follow`, on a TPU named NAME-evaluate
#   status    the state of both, and the last lines of their logs
#   down      deletes both, with the copies of the data on their disks
#   --dry     prints the commands, as for a slice that is not there yet
#
# Set by environment variables:
#   PROJECT, ZONE   of Google Cloud (required)
#   NAME            of the slice and of its queued resource (required)
#   TYPE            accelerator type, such as v5litepod-16 or v6e-256 (required)
#   RUNTIME         runtime version, such as v2-alpha-tpuv5-lite or v2-alpha-tpuv6e (required)
#   CONFIG          training config, FILE or FILE:ARG (required by train)
#   DATA            gs:// directory made by `ecgjax prepare`, copied to the disk of every worker (required by install)
#   WORKDIR         gs:// directory of the run (required by train and evaluate)
#   SPOT            yes: cheaper, may be preempted at any time; no (yes)
#   SERVICE_ACCOUNT what the workers act as; needs to read DATA and write WORKDIR (the project's default)
#   NETWORK, SUBNETWORK   where the workers live (the project's default)
#   EVALUATE_TYPE   accelerator type of the evaluation: one host (v5litepod-4)
#   EVALUATE_RUNTIME  its runtime version (v2-alpha-tpuv5-lite)
#   POLL            seconds between two looks at the slice (60)
#   MAX_RESTARTS    after which it gives up (100)
#   GCLOUD          the command (gcloud)
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/commands.sh

: "${TYPE:=}" "${RUNTIME:=}" "${SPOT:=yes}" "${SERVICE_ACCOUNT:=}" "${NETWORK:=}" "${SUBNETWORK:=}" "${EVALUATE_TYPE:=v5litepod-4}"
: "${EVALUATE_RUNTIME:=v2-alpha-tpuv5-lite}" "${POLL:=60}" "${MAX_RESTARTS:=100}" "${GCLOUD:=gcloud}"
if [ "${1:-}" = --dry ]; then
  dry=yes
  shift
fi
verb=${1:-}
[ $# -eq 0 ] || shift
commit=$(git rev-parse HEAD)

check() {
  need PROJECT "the Google Cloud project"
  need ZONE "its zone, such as europe-west4-b"
  need NAME "a name for the slice"
  number POLL
  number MAX_RESTARTS
}
check_slice() {
  need TYPE "the accelerator type, such as v5litepod-16"
  need RUNTIME "the runtime version, such as v2-alpha-tpuv5-lite"
}
check_bucket() { # NAME WHAT
  need "$1" "$2"
  [[ ${!1} == gs://?* ]] && return
  echo "tpu_pod.sh: $1 is '${!1}'; give a gs:// directory: the workers share no disk" >&2
  exit 2
}
check_run() {
  check_bucket DATA "the gs:// directory made by ecgjax prepare"
  check_bucket WORKDIR "the gs:// directory of the run"
}

# Every command of gcloud goes through here.
tpu() { "$GCLOUD" compute tpus "$@" --project="$PROJECT" --zone="$ZONE" --quiet; }
on() { # NODE WORKER COMMAND: runs on one worker or on all
  run tpu_run tpu-vm ssh "$1" --worker="$2" --command="$3"
}
tpu_run() { tpu "$@"; }
run() { # As in commands.sh, but prints what `tpu` would run.
  if [ "$dry" != yes ]; then
    "$@"
  elif [ "$1" = tpu_run ]; then
    quoted "$GCLOUD" compute tpus "${@:2}" --project="$PROJECT" --zone="$ZONE" --quiet
  else
    quoted "$@"
  fi
}

request() { # NODE: the state of its queued resource, MISSING where there is none
  answer queued-resources describe "$1" --format='value(state.state)'
}
machine() { # NODE: the state of the TPU itself, MISSING where there is none
  answer tpu-vm describe "$1" --format='value(state)'
}
answer() {
  local said
  if said=$(tpu "$@" 2>&1); then
    printf '%s\n' "${said##*$'\n'}"
  elif [[ $said == *NOT_FOUND* || $said == *"not found"* ]]; then
    echo MISSING
  else # No network, or no permission: says nothing of the slice.
    say "$said"
    echo UNKNOWN
  fi
}

up() { # NODE TYPE RUNTIME
  local node=$1 flags=(--node-id="$1" --accelerator-type="$2" --runtime-version="$3")
  [ "$SPOT" = yes ] && flags+=(--spot)
  [ -n "$SERVICE_ACCOUNT" ] && flags+=(--service-account="$SERVICE_ACCOUNT")
  [ -n "$NETWORK" ] && flags+=(--network="$NETWORK")
  [ -n "$SUBNETWORK" ] && flags+=(--subnetwork="$SUBNETWORK")
  if [ "$dry" = yes ]; then
    run tpu_run queued-resources create "$node" "${flags[@]}"
    return
  fi
  while true; do # UNKNOWN waits: a slice that nobody can see may well be training.
    case $(request "$node") in
      MISSING)
        say "$node: asking for a $2"
        tpu queued-resources create "$node" "${flags[@]}"
        ;;
      ACTIVE)
        case $(machine "$node") in
          READY) return ;;
          PREEMPTED | TERMINATED | MISSING) delete "$node" ;;
        esac
        ;;
      SUSPENDED) delete "$node" ;; # Preempted: a request is served once.
      FAILED)
        tpu queued-resources describe "$node" >&2
        say "$node: the request failed, see above; mend it, then: tpu_pod.sh down"
        exit 1
        ;;
    esac
    sleep "$POLL"
  done
}

delete() { # NODE
  run tpu_run queued-resources delete "$1" --force
}

install() { # NODE: the commit that was current when this script began
  local archive=${TMPDIR:-/tmp}/ecgjax-${commit:0:12}.tar.gz
  [ -z "$(git status --porcelain)" ] || say "changes that are not committed stay here: installing ${commit:0:12}"
  run git archive --format=tar.gz --output="$archive" "$commit" &&
    run tpu_run tpu-vm scp "$archive" "$1:ecgjax.tar.gz" --worker=all &&
    on "$1" all "$(
      cat <<REMOTE
set -e
command -v python3.11 >/dev/null || { sudo apt-get -qq update; sudo apt-get -qq install -y python3.11 python3.11-venv; }
mkdir -p ecgjax data
rm -f ecgjax/installed
tar -xzf ecgjax.tar.gz -C ecgjax
cd ecgjax
. launch/install.sh
ecgjax_install tpu
gcloud storage rsync --recursive $(quoted "$DATA") ../data
REMOTE
    )" &&
    on "$1" all "echo $commit >ecgjax/installed" # Once all have it: half of a slice trains nothing.
}

# On a worker a run is a session of its own, which outlives the connection. Its files in ~/ecgjax carry a number made
# of its command: pid-N is its process group, code-N how it ended, log-N what it said.
number_of() { # COMMAND...
  printf '%q ' "$@" | cksum | cut -d' ' -f1
}

start() { # NODE COMMAND...: on all workers; what an earlier start of the same command has left is ended first
  local node=$1 n
  shift
  n=$(number_of "$@")
  on "$node" all "$(
    cat <<REMOTE
cd ecgjax
[ ! -f pid-$n ] || kill -KILL -- -\$(cat pid-$n) 2>/dev/null || true
rm -f code-$n
setsid nohup bash -c 'echo \$\$ >pid-$n; "\$@" >>log-$n 2>&1; echo \$? >code-$n' run $(quoted "$@") >/dev/null 2>&1 </dev/null &
REMOTE
  )"
}

look() { # NODE COMMAND...: fresh, running, busy, gone, or the exit code on worker 0; all workers end where one does
  # fresh: not installed, or another commit, by which what is over has not run
  local node=$1 n said
  shift
  n=$(number_of "$@")
  said=$(on "$node" 0 "$(
    cat <<REMOTE
cd ecgjax 2>/dev/null || { echo fresh; exit 0; }
alive() { [ -f pid-\$1 ] && [ ! -f code-\$1 ] && kill -0 "\$(cat pid-\$1)" 2>/dev/null; }
if alive $n; then echo running; exit 0; fi
for other in pid-*; do ! alive "\${other#pid-}" || { echo busy; exit 0; }; done
if [ "\$(cat installed 2>/dev/null)" != $commit ]; then echo fresh
elif [ -f code-$n ]; then cat code-$n; else echo gone; fi
REMOTE
  )") || said=unreachable
  printf '%s\n' "${said##*$'\n'}"
}

follow() { # NODE TYPE RUNTIME COMMAND...: until the command ends well, over however many slices
  local node=$1 kind=$2 runtime=$3 found restarts=0 failed=0 started=no
  shift 3
  if [ "$dry" = yes ]; then
    up "$node" "$kind" "$runtime"
    install "$node"
    start "$node" "$@"
    return
  fi
  while true; do
    up "$node" "$kind" "$runtime"
    found=$(look "$node" "$@")
    case $found in
      running) started=yes ;;
      unreachable) say "$node: worker 0 does not answer; looking again in $POLL s" ;;
      busy)
        say "$node: another command runs there; wait for it, or choose another NAME"
        exit 1
        ;;
      0)
        say "$node: done. It is still rented; to end that: tpu_pod.sh down"
        return
        ;;
      fresh | gone | 75 | 76 | 143) begin "$@" ;; # Not started here, or interrupted: it goes on from the last checkpoint.
      *)
        on "$node" 0 "tail -n 30 ecgjax/log-$(number_of "$@")" >&2 || true
        if [ "$started" = yes ]; then
          say "$node: ended with code $found, see above; mend it and run this again"
          exit 1
        fi
        say "$node: had ended with code $found, see above; asked for again"
        begin "$@"
        ;;
    esac
    sleep "$POLL"
  done
}

begin() { # COMMAND...: a part of follow; a slice that goes away meanwhile is no error, and `up` will see it
  [ "$restarts" -le "$MAX_RESTARTS" ] || {
    say "$node: restarted $MAX_RESTARTS times, which is MAX_RESTARTS; run this again to go on"
    exit 1
  }
  restarts=$((restarts + 1))
  say "$node: starting ($found)"
  if { [ "$found" != fresh ] || install "$node"; } && start "$node" "$@"; then
    started=yes failed=0
    return
  fi
  failed=$((failed + 1))
  say "$node: could not install or start, see above"
  [ "$failed" -lt 3 ] || {
    say "$node: three times in a row; mend it and run this again"
    exit 1
  }
}

case $verb in
  up)
    check
    check_slice
    up "$NAME" "$TYPE" "$RUNTIME"
    ;;
  install)
    check
    check_bucket DATA "the gs:// directory made by ecgjax prepare"
    install "$NAME"
    ;;
  train)
    check
    check_slice
    need CONFIG "the training config, such as configs/ecg_cmr.py:paper"
    check_run
    follow "$NAME" "$TYPE" "$RUNTIME" .venv/bin/python -m ecgjax train --distributed=tpu --config="$CONFIG" \
      --config.data.directory=../data --workdir="$WORKDIR" "$@"
    ;;
  evaluate)
    check
    check_run
    follow "$NAME-evaluate" "$EVALUATE_TYPE" "$EVALUATE_RUNTIME" .venv/bin/python -m ecgjax evaluate \
      --workdir="$WORKDIR" --data=../data --follow --timeout=86400
    ;;
  status)
    check
    for node in "$NAME" "$NAME-evaluate"; do
      run tpu_run queued-resources describe "$node" --format='value(state.state)' || continue
      on "$node" 0 'tail -n 3 ecgjax/log-*' || true
    done
    ;;
  down)
    check
    for node in "$NAME" "$NAME-evaluate"; do
      [ "$dry" != yes ] && [ "$(request "$node")" = MISSING ] || delete "$node"
    done
    ;;
  *)
    sed -n '2,14s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
