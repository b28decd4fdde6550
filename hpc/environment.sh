# Sourced by every job. Edit for your cluster: how Python is found, and nothing else.
#   CONFIG  configuration file               OUT  folder of the run
set -euo pipefail
: "${CONFIG:=configs/paper_ce.toml}"
: "${OUT:=runs/$(basename "$CONFIG" .toml)}"
: "${VENV:=.venv}"
cd "${SLURM_SUBMIT_DIR:-.}"
source "$VENV/bin/activate"
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}" RAYON_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"
