#!/bin/bash
#SBATCH --job-name=cellvae
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

# One model on several nodes, one process for each GPU.
#
#     bash slurm.sh counts.h5ad --out run/ --batch-key batch      checks, and starts nothing
#     sbatch slurm.sh counts.h5ad --out run/ --batch-key batch    submits
#
# Two minutes before the time limit all processes get SIGTERM. They end after the same batch with
# exit code 143, and the job puts itself back into the queue, where it resumes.

if [ -z "$SLURM_JOB_ID" ]; then
    cellvae train "$@" --dry-run && exec sbatch --test-only "$0" "$@"
    exit 2
fi

srun --kill-on-bad-exit=1 cellvae train "$@" \
    --devices "$SLURM_NTASKS_PER_NODE" --num-nodes "$SLURM_NNODES" --no-enable-progress-bar
code=$?

# A job that was cancelled has time left, and is not started again.
left=$(squeue --noheader --jobs "$SLURM_JOB_ID" --format %L)
if [ "$code" -eq 143 ] && [[ "$left" =~ ^0?[0-4]:[0-9][0-9]$ ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
