#!/usr/bin/env bash
# The same verbs on real ECGs: PTB-XL at 100 Hz; MDM pre-training, then the probe of each diagnosis by patient.
#
# Usage: bash launch/ptbxl.sh DIRECTORY [--out DIR] [--seeds N] [--split strat_fold|patient]
#   DIRECTORY   holds ptbxl_database.csv, scp_statements.csv and records100/
#   --split     strat_fold (default): the recommended folds; patient: a seeded draw, for subsets of uneven folds
set -euo pipefail
cd "$(dirname "$0")/.."

directory='' out=runs/ptbxl seeds=1 split=strat_fold
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=$2 && shift 2 ;;
    --seeds) seeds=$2 && shift 2 ;;
    --split) split=$2 && shift 2 ;;
    -*) echo "ptbxl.sh: unknown argument $1" >&2 && exit 2 ;;
    *) directory=$1 && shift ;;
  esac
done
if [ -z "$directory" ]; then
  sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi

. launch/install.sh
ecgjax_install ""

ecgjax prepare --config=configs/prepare.py:ptbxl --config.cohort.directory="$directory" \
  --config.cohort.split="$split" --directory="$out/data"
for seed in $(seq 0 $((seeds - 1))); do
  ecgjax train --config=configs/mae_ecg.py:ptbxl --config.seed="$seed" \
    --config.data.directory="$out/data" --workdir="$out/seed$seed/mdm"
  ecgjax evaluate --workdir="$out/seed$seed/mdm" --steps=0,last
done
ecgjax evaluate --workdir="$out/seed0/mdm" --evaluator=baselines
ecgjax export --workdir="$out/seed0/mdm" --output="$out/export"
ecgjax report --config="configs/report.py:ptbxl,$seeds" --root="$out" --data="$out/data" --markdown="$out/report.md"
