#!/usr/bin/env bash
# One study on several whole nodes: sbatch docs/slurm.sh study=batchnorm launcher.workers=64
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
set -euo pipefail

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
cpus=$SLURM_CPUS_ON_NODE
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
RAY_AUTH_TOKEN=$(python3 -c 'import secrets; print(secrets.token_hex(32))')

# Starts a node of the cluster everywhere, the study on the first, and ends all of it with the study.
srun --export=ALL ray symmetric-run --address "$head:6379" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus="$cpus" --disable-usage-stats -- \
    optstudy run launcher=ray "launcher.address=$head:6379" "$@"
