#!/bin/bash
#SBATCH --job-name=cellvae-seeds
#SBATCH --array=0-4
#SBATCH --ntasks=1
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.log

# One model for each seed, each in a folder of its own, each on one GPU.
#
#     sbatch slurm-seeds.sh counts.h5ad runs/ --batch-key batch

counts=$1
seed=$SLURM_ARRAY_TASK_ID
out=$2/seed-$seed
shift 2

srun --ntasks=1 cellvae train "$counts" --out "$out" --seed "$seed" "$@" --no-enable-progress-bar
code=$?

job=${SLURM_ARRAY_JOB_ID}_$seed
left=$(squeue --noheader --jobs "$job" --format %L)
if [ "$code" -eq 143 ] && [[ "$left" =~ ^0?[0-4]:[0-9][0-9]$ ]]; then
    scontrol requeue "$job"
fi
exit "$code"
