#!/bin/bash
# Job a of run exp/run-1, as nemo-run starts it.
set -euo pipefail
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
export SUBMITIT_EXECUTOR=slurm
exec bash -c 'mark=$SKILLS_PIPE_PROGRESS_FILE".installed-$SLURM_JOB_ID-$SLURM_STEP_ID-$SLURM_NODEID-${SLURM_RESTART_COUNT:-0}"; if [ "$SLURM_LOCALID" = 0 ]; then ( eval "$0" ) && echo ok > "$mark" || echo failed > "$mark"; fi; until [ -s "$mark" ]; do sleep 0.2; done; if [ "$(cat "$mark")" != ok ]; then echo "the installation command failed" >&2; exit 1; fi; exec "$@"' 'pip install x' python -m train 'a b'
