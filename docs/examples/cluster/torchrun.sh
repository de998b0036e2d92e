#!/bin/bash
# One model on several computers without a scheduler. Run the same line on each of them:
#
#     NODES=2 DEVICES=4 FIRST=node1:29400 bash torchrun.sh counts.h5ad --out /shared/run --batch-key batch
#
# FIRST is the first computer and a free port there; the folder of --out is one that all can reach.
# If a process dies, all are started again, up to three times, and resume from the last state.

nodes=${NODES:-1}
devices=${DEVICES:-4}

trap 'kill -TERM $child; wait $child; exit 143' TERM

# Not --max-restarts: computers that count their restarts differently would wait for each other.
for _ in 1 2 3 4; do
    torchrun --nnodes="$nodes" --nproc-per-node="$devices" --max-restarts=0 \
        --rdzv-backend=c10d --rdzv-endpoint="${FIRST:-localhost:29400}" --rdzv-id=cellvae \
        -m cellvae train "$@" --devices "$devices" --num-nodes "$nodes" --no-enable-progress-bar &
    child=$!
    wait $child && exit 0
    sleep 2
done
exit 1
