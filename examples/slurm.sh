#!/bin/bash
# Train a recipe on several machines by Slurm: sbatch examples/slurm.sh imagenet256-xl runs/imagenet256-xl --set ...
# Adapt to your cluster: nodes, gpus-per-node, cpus-per-task, time, and the activation of the environment below.
# The run folder must be on a disk that all machines share. If it contains a run, the same command resumes it.
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
# --signal: three minutes before the time limit, Slurm sends TERM to torchrun, which forwards it to its processes. They
# save a checkpoint and stop. --requeue: Slurm restarts the job after preemption. After the time limit, the end of this
# script does.
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

# torchrun exits with 1 both if a process failed and if all were stopped by a signal and saved. Requeue only if a
# checkpoint was written since the start of this job, so that a run that fails immediately is not restarted forever.
started=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/.*StartTime=\([^ ]*\).*/\1/p')
if [[ $code -ne 0 && -n $(find "$folder/checkpoints" -maxdepth 2 -name manifest.json -newermt "$started" -print -quit) ]]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
