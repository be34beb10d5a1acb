#!/bin/bash
# Pre-training on several machines under Slurm; sent off again before its time is over, it goes on by itself:
#   sbatch --nodes 2 book/slurm_train.sh /data/mine.h5 /scratch/run --profile full
# The first argument is the data set, the second the folder of the run, the rest goes to `cimp pretrain`. Both have to
# lie on a disk that all machines see. Adapt the lines of #SBATCH to your cluster, and load your environment below them.
#SBATCH --job-name=cimp
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@300
set -euo pipefail

data=$1
out=$2
shift 2

# Slurm sends USR1 five minutes before the time limit. The job goes back into the queue under the same number; what was
# done since the last checkpoint is done again.
again() {
    echo "time limit: job $SLURM_JOB_ID goes back into the queue"
    kill -TERM "$training" 2>/dev/null || true
    wait "$training" || true
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
}
trap again USR1

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)  # not head, which would end scontrol with a SIGPIPE

# One torchrun a machine, which starts one process a card. In the background, or the shell would not hear the signal.
srun --cpus-per-task "$SLURM_CPUS_PER_TASK" torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" \
    --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" \
    --max-restarts 3 \
    --rdzv-id "$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" \
    --rdzv-backend c10d \
    --rdzv-endpoint "$first:29500" \
    -m cimp_core.cli pretrain "$data" --out "$out" --resume "$@" &
training=$!
wait "$training"
