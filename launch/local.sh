#!/usr/bin/env bash
# The main job on the embedded synthetic cohort, from nothing to a report:
#   prepare, MDM, MMCL (from scratch, from MDM, on permuted pairs), supervised bounds, evaluate, export, report.
#
# Usage: bash launch/local.sh [--seeds N] [--out DIR] [--cohort_seed S]
#   --seeds N         training seeds, each with all runs (default 1; 3 decides the claims)
#   --out DIR         where runs go (default runs/local); run again to go on after an interruption
#   --cohort_seed S   which synthetic cohort (default 0)
set -euo pipefail
cd "$(dirname "$0")/.."

seeds=1 out=runs/local cohort_seed=0
while [ $# -gt 0 ]; do
  case $1 in
    --seeds) seeds=$2 && shift 2 ;;
    --out) out=$2 && shift 2 ;;
    --cohort_seed) cohort_seed=$2 && shift 2 ;;
    *)
      sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
      echo "local.sh: unknown argument $1" >&2
      exit 2
      ;;
  esac
done

. launch/install.sh
ecgjax_install ""
began=$SECONDS
mkdir -p "$out/log"

# Two runs side by side, one thread each, finish sooner than one run after another on both cores: the matrices of
# this demo are too small to share.
one_thread() {
  env XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1" \
    OMP_NUM_THREADS=1 JAX_PLATFORMS=cpu "$@"
}
step() { printf '[%4ds] %s\n' $((SECONDS - began)) "$*" >&2; }

logged() { # LOG COMMAND...: quiet, but the end of the log is shown where the command fails
  local log=$1
  shift
  one_thread "$@" >>"$log" 2>&1 || { tail -n 20 "$log" >&2 && return 1; }
}
train() { # NAME CONFIG [overrides]
  local name=$1 config=$2
  shift 2
  step "train $name"
  logged "$out/log/${name//\//-}.log" ecgjax train --config="$config" --config.data.directory="$out/data" \
    --workdir="$out/$name" --compile_cache="$out/compile_cache" "$@"
}
evaluate() { # NAME [flags]
  local name=$1
  shift
  step "evaluate $name"
  logged "$out/log/${name//\//-}.log" ecgjax evaluate --workdir="$out/$name" \
    --compile_cache="$out/compile_cache" "$@"
}

step "prepare the cohort"
ecgjax prepare --config=configs/prepare.py:synthetic --directory="$out/data" --config.cohort.seed="$cohort_seed"

# Two lanes, balanced by how long their runs take.
masked_then_contrastive() { # SEED
  local s=seed$1 seed=--config.seed=$1
  train "$s/mdm" configs/mae_ecg.py:demo "$seed" &&
    evaluate "$s/mdm" --steps=0,last &&
    train "$s/mmcl" configs/ecg_cmr.py:demo "$seed" --config.init_from.workdir="$out/$s/mdm" &&
    evaluate "$s/mmcl" &&
    train "$s/supervised_ecg" configs/supervised.py:ecg "$seed" &&
    evaluate "$s/supervised_ecg" &&
    train "$s/supervised_cmr" configs/supervised.py:cmr "$seed" &&
    evaluate "$s/supervised_cmr"
}
controls() { # SEED
  local s=seed$1 seed=--config.seed=$1
  train "$s/mmcl_scratch" configs/ecg_cmr.py:demo "$seed" &&
    evaluate "$s/mmcl_scratch" &&
    train "$s/mmcl_permuted" configs/ecg_cmr.py:demo "$seed" --config.data.pairing=permuted &&
    evaluate "$s/mmcl_permuted"
}
set -m # A lane in the background is a process group of its own: it can be ended with all it started.
for seed in $(seq 0 $((seeds - 1))); do
  controls "$seed" &
  lane=$!
  masked_then_contrastive "$seed" || { kill -- "-$lane"; exit 1; }
  wait "$lane"
done
evaluate seed0/mdm --evaluator=baselines --evaluator_setting=max_labels=1500 \
  --evaluator_setting="inputs=('hand_features',)"

step "export embeddings"
logged "$out/log/export.log" ecgjax export --workdir="$out/seed0/mmcl" --output="$out/export"
step "report"
ecgjax report --config="configs/report.py:synthetic,$seeds" --root="$out" --data="$out/data" \
  --markdown="$out/report.md"
step "done: $out/report.html, $out/export/embeddings.parquet"
