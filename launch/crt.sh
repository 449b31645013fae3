#!/usr/bin/env bash
# Response to resynchronisation, from nothing to a report: prepare beats, train their classes on time-frequency images,
# prepare patients, cross-validate comparators and the encoder in five modes, controls, report.
#
# Usage: bash launch/crt.sh [--mitbih DIR] [--cohort CSV [--config.cohort.FIELD=VALUE]...] [--vit WORKDIR] [--seed N]
#                           [--out DIR]
#   --mitbih DIR    beats of the MIT-BIH Arrhythmia Database in DIR (default: the embedded synthetic beats)
#   --cohort CSV    a table of your patients (default: an embedded cohort whose best possible AUC is 0.80)
#   --config.cohort.FIELD=VALUE   of the patients' recipe in configs/prepare.py: --config.cohort.response=super
#   --vit WORKDIR   judge this MMCL or MDM run's encoder as well (default: runs/local/seed0/mmcl where it is)
#   --seed N        seed of training and of the embedded cohorts (default 0)
#   --out DIR       where runs go (default runs/crt); run again to go on after an interruption
set -euo pipefail
here=$PWD
cd "$(dirname "$0")/.."

refuse() {
  sed -n '2,12s/^# \{0,1\}//p' "$0" >&2
  echo "crt.sh: $1" >&2
  exit 2
}
there() { # A path that exists, from the caller's directory or from this one.
  local path
  for path in "$here/$1" "$PWD/$1"; do
    case $1 in /*) path=$1 ;; esac
    [ ! -e "$path" ] || { echo "$path" && return; }
  done
  refuse "$1 does not exist"
}
mitbih='' cohort='' vit='' seed=0 out=runs/crt of_patients=()
while [ $# -gt 0 ]; do
  case $1 in
    --config.cohort.*=*) of_patients+=("$1") && shift && continue ;;
    --mitbih | --cohort | --vit | --seed | --out) [ $# -gt 1 ] || refuse "$1 needs a value" ;;
    *) refuse "unknown argument $1" ;;
  esac
  case $1 in
    --mitbih) mitbih=$(there "$2") ;;
    --cohort) cohort=$(there "$2") ;;
    --vit) vit=$(there "$2") ;;
    --seed) seed=$2 ;;
    --out) out=$2 ;;
  esac
  shift 2
done
if [ -z "$vit" ] && [ -d runs/local/seed0/mmcl/checkpoints ]; then vit=runs/local/seed0/mmcl; fi

. launch/install.sh
ecgjax_install ""
began=$SECONDS
mkdir -p "$out/log"

# Two runs side by side, one thread each, finish sooner than one run after another on both cores: the matrices are
# too small to share.
one_thread() {
  env XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1" \
    OMP_NUM_THREADS=1 JAX_PLATFORMS=cpu "$@"
}
step() { printf '[%4ds] %s\n' $((SECONDS - began)) "$*" >&2; }

logged() { # NAME COMMAND...: quiet, but the end of the log is shown where the command fails
  local log=$out/log/$1.log
  shift
  one_thread "$@" >>"$log" 2>&1 || { tail -n 20 "$log" >&2 && return 1; }
}
prepare() { # NAME RECIPE [flags]
  local name=$1 recipe=$2
  shift 2
  step "prepare $name"
  ecgjax prepare --config=configs/prepare.py:"$recipe" --directory="$out/$name" "$@"
}
patients() { # NAME RECIPE_SUFFIX [flags]: the patients, conditioned as an encoder was trained
  local name=$1 suffix=$2
  shift 2
  if [ -n "$cohort" ]; then
    prepare "$name" "crt$suffix" --config.cohort.table="$cohort" ${of_patients[@]+"${of_patients[@]}"} "$@"
  else
    prepare "$name" "synthetic_crt$suffix" --config.cohort.seed="$seed" ${of_patients[@]+"${of_patients[@]}"} "$@"
  fi
}
judge() { # NAME CONFIG DATA [overrides]
  local name=$1 config=$2 data=$3
  shift 3
  step "cross-validate $name"
  logged "$name" ecgjax crossvalidate --config=configs/crt_response.py:"$config" --config.seed="$seed" \
    --config.data.directory="$out/$data" --workdir="$out/crt/$name" --compile_cache="$out/compile_cache" "$@"
}

if [ -n "$mitbih" ]; then
  recipe=bbb
  prepare beats_data mitbih_bbb --config.cohort.directory="$mitbih"
else
  recipe=demo
  prepare beats_data synthetic_beats --config.cohort.seed="$seed"
fi
beats=$out/seed0/beats
step "train beats"
logged beats ecgjax train --config=configs/crt_beats.py:"$recipe" --config.seed="$seed" \
  --config.data.directory="$out/beats_data" --workdir="$beats" --compile_cache="$out/compile_cache"
step "evaluate beats"
logged beats ecgjax evaluate --workdir="$beats" --steps=best --compile_cache="$out/compile_cache"

patients crt_data "" --like="$beats"
# Patients who respond by chance: whoever predicts them has seen what nobody may see.
prepare null_data synthetic_crt_null --like="$beats" --config.cohort.seed="$seed"
# With the key of the first, a patient has one name in both.
[ -z "$vit" ] || patients crt_vit_data _vit100 --like="$vit" --key_file="$out/crt_data/private/key"

# Two lanes, balanced by how long they take.
from=(--config.init_from.workdir="$beats" --config.init_from.step=best)
control=("${from[@]}" "--config.crossvalidation.permuted_of=()") # Nothing there is left to permute.
lane_trained() {
  judge probe probe crt_data "${from[@]}" && judge partial partial crt_data "${from[@]}" &&
    judge full full crt_data "${from[@]}"
}
lane_controls() {
  judge comparators comparators crt_data && judge random random crt_data "${from[@]}" &&
    judge permuted probe crt_data "${control[@]}" --config.labels=permuted &&
    judge null probe null_data "${control[@]}" &&
    judge scratch scratch crt_data "${from[@]}" || return
  [ -z "$vit" ] || { judge vit_probe vit_probe crt_vit_data --config.init_from.workdir="$vit" &&
    judge vit_random vit_random crt_vit_data --config.init_from.workdir="$vit"; }
}
set -m # A lane in the background is a process group of its own: it can be ended with all it started.
lane_controls &
lane=$!
lane_trained || { kill -- "-$lane"; exit 1; }
wait "$lane"

step "report"
report=crt
[ -z "$vit" ] || report=crt_vit
ecgjax report --config=configs/report.py:"$report" --root="$out" --markdown="$out/card.md"
step "done: $out/report.html, $out/card.md"
