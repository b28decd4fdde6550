#!/usr/bin/env bash
# Submits a whole run: bash hpc/submit.sh [CONFIG] [OUT], from the repository's root.
set -euo pipefail
export CONFIG="${1:-configs/paper_ce.toml}"
export OUT="${2:-runs/$(basename "$CONFIG" .toml)}"
train=$(sbatch --parsable --export=ALL hpc/train.sbatch)
influence=$(sbatch --parsable --export=ALL --dependency=afterok:"$train" hpc/influence.sbatch)
report=$(sbatch --parsable --export=ALL --dependency=afterany:"$influence" hpc/report.sbatch)
echo "train $train, influence $influence, report $report: the page will be $OUT/report/report.html"
