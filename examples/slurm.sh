#!/bin/bash
# Train a recipe on several machines by Slurm: sbatch examples/slurm.sh imagenet256-xl runs/imagenet256-xl --set ...
# To be set for a cluster: nodes, gpus-per-node, cpus-per-task, time, and what the environment needs below.
# The folder must be on a disk that all machines share. The same command goes on with a run that is there.
#SBATCH --job-name=sitkit
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# --signal: every task hears TERM three minutes before the time is over, saves, and stops; a task is torchrun, which
# tells its processes. --requeue: the job may start again, after preemption by itself, and otherwise by the end below.
set -uo pipefail
recipe=${1:?RECIPE and DIR are needed}
folder=${2:?a folder for the run is needed}
shift 2

# source .venv/bin/activate
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / SLURM_GPUS_ON_NODE))

srun --kill-on-bad-exit=0 torchrun \
  --nnodes "$SLURM_NNODES" \
  --nproc-per-node "$SLURM_GPUS_ON_NODE" \
  --rdzv-id "$SLURM_JOB_ID" \
  --rdzv-backend c10d \
  --rdzv-endpoint "$head:29500" \
  --signals-to-handle SIGTERM,SIGINT,SIGUSR1,SIGUSR2 \
  --shutdown-timeout 170 \
  -m sitkit.recipes train "$recipe" --out "$folder" "$@"
code=$?

# torchrun ends with 1 both when a process failed and when all were asked to stop and saved: start again only if a
# checkpoint was written since this job began, so that a run that fails at once does not fail for ever.
began=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/.*StartTime=\([^ ]*\).*/\1/p')
if [[ $code -ne 0 && -n $(find "$folder/checkpoints" -maxdepth 2 -name manifest.json -newermt "$began" -print -quit) ]]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
