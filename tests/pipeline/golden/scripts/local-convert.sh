#!/bin/bash
# Job my-exp-convert-final-ckpt of run my-exp/run-3.
set -euo pipefail
export PYTHONUNBUFFERED=1
export HF_HOME='/data/hf home'
export SKILLS_PIPE_IDENTITY_FILE=/home/me/.skills_pipe/experiments/my-exp/run-3/identities/convert.json
export SKILLS_PIPE_PROGRESS_FILE=/home/me/.skills_pipe/experiments/my-exp/run-3/progress/my-exp-convert-final-ckpt.json
export SKILLS_PIPE_WARNINGS_FILE=/home/me/.skills_pipe/experiments/my-exp/run-3/warnings/my-exp-convert-final-ckpt.json
export PATH=/venv/bin:"$PATH"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}"
cd '/home/me/my project'
pip install x && echo 'done'
exec python -m skills_pipe.training.checkpoint.export --hf_ckpt_path=/workspace/out/hf
