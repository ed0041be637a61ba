#!/bin/bash
# A recipe on a Slurm cluster:
#   sbatch --nodes 64 recipes/slurm.sh starcoderbase [--key=value …]
# Where partitions, accounts or the number of GPUs differ, say so to sbatch: its options win over the lines below.
#SBATCH --job-name=starcoder
#SBATCH --nodes=64                 # the recipe's trainer.num_nodes is set to what the job gets
#SBATCH --ntasks-per-node=8        # one process a GPU
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8          # the process, its data workers, and the thread that writes checkpoints
#SBATCH --exclusive
#SBATCH --time=1-00:00:00          # shorter than the run: it requeues itself
#SBATCH --signal=USR1@300          # five minutes before the end every process is told; of a preemption by SIGTERM. It must
                                   # cover a step and a save: on 2 nodes a step of starcoderbase alone takes 2.5 minutes
#SBATCH --requeue                  # Slurm may start it again after a node has failed
#SBATCH --open-mode=append         # logs of all starts, one after the other
#SBATCH --output=slurm-%j.log      # this script; the processes have a log a node, see srun

set -uo pipefail
recipe=${1:?name a recipe, such as starcoderbase}
shift
logs=build/runs/$recipe/logs
mkdir -p "$logs"

# Rendezvous: rank 0's node, and a port that two jobs on it do not share.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR
export MASTER_PORT=$((10000 + SLURM_JOB_ID % 50000))

export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK  # srun does not inherit it
export OMP_NUM_THREADS=1                      # the GPUs compute; data workers are processes of their own
export PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True  # blocks of many sizes leave no holes
export TORCH_NCCL_ASYNC_ERROR_HANDLING=1      # a collective that fails ends the process, instead of hanging for ever
export NCCL_DEBUG=${NCCL_DEBUG:-WARN}         # INFO shows which network is used; look at it once: sockets are 10 times slower
# Left to NCCL, unless it chooses wrongly (see NCCL_DEBUG=INFO):
#   NCCL_SOCKET_IFNAME=^lo,docker0            the interface of the rendezvous
#   NCCL_IB_HCA=mlx5                          InfiniBand adapters
#   FI_PROVIDER=efa                           AWS: the network of the paper's run; needs the aws-ofi-nccl plugin

# --wait: when one process has died, the others wait for it in a collective; when all leave, none is killed on the way.
srun --kill-on-bad-exit=0 --wait=60 --output="$logs/%N.log" --open-mode=append \
  .venv/bin/starcoder fit --config "recipes/$recipe.yaml" \
  --trainer.num_nodes "$SLURM_NNODES" --trainer.devices "$SLURM_NTASKS_PER_NODE" --ckpt_path last "$@"
code=$?

# 75: the run was told to stop and has saved (starcoder/training/preemption.py). Anything else is for you to look at.
if [ $code -eq 75 ]; then
  echo "stopped and saved at $(date -Is); goes on in the queue"
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
fi
exit $code
