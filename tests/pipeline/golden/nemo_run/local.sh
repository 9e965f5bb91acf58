#!/bin/bash
# Job a of run exp/run-1, as nemo-run starts it.
set -euo pipefail
exec >> /home/me/logs/main_a_local-1.log 2>&1
run=/jobs/experiments/exp/run-1
if [ -r "$run/secrets.env" ]; then . "$run/secrets.env"; fi
export PYTHONUNBUFFERED=1
export NAME_OF_JOB=a
export SKILLS_PIPE_IDENTITY_FILE=/jobs/experiments/exp/run-1/identities/a.json
export SKILLS_PIPE_PROGRESS_FILE=/jobs/experiments/exp/run-1/progress/a.json
export SKILLS_PIPE_WARNINGS_FILE=/jobs/experiments/exp/run-1/warnings/a.json
export PYTHONPATH=/jobs/code"${PYTHONPATH:+:$PYTHONPATH}"
export PATH=/venv/bin:"$PATH"
cd /jobs/code
pip install x
exec python -m torch.distributed.run --standalone --nproc-per-node=2 -m train 'a b'
