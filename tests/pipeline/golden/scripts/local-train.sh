#!/bin/bash
# Job my-exp-sft-0 of run my-exp/run-3.
set -euo pipefail
export PYTHONUNBUFFERED=1
export HF_HOME='/data/hf home'
export SKILLS_PIPE_IDENTITY_FILE=/home/me/.skills_pipe/experiments/my-exp/run-3/identities/sft.json
export SKILLS_PIPE_PROGRESS_FILE=/home/me/.skills_pipe/experiments/my-exp/run-3/progress/my-exp-sft-0.json
export SKILLS_PIPE_WARNINGS_FILE=/home/me/.skills_pipe/experiments/my-exp/run-3/warnings/my-exp-sft-0.json
export SKILLS_PIPE_VERDICT_FILE=/home/me/.skills_pipe/experiments/my-exp/run-3/verdicts/my-exp-sft-0.json
export SKILLS_PIPE_SAVE_NOW_FILE=/home/me/.skills_pipe/experiments/my-exp/run-3/save-now/my-exp-sft-0
export PATH=/venv/bin:"$PATH"
cd '/home/me/my project'
exec python -m torch.distributed.run --standalone --nproc-per-node=8 -m skills_pipe.training.sft '++logger.wandb.name=it'"'"'s "quoted" $HOME' '++data.x=[1, 2]'
