"""Which of its job's GPUs a command sees, where several commands share a job."""

from __future__ import annotations

from skills_pipe.pipeline.plan import Job

# "all" is a list of what is visible; $0 is where the share begins, $1 how many it has.
_SHARE = (
    'IFS=, read -ra all <<< "${CUDA_VISIBLE_DEVICES:-}"; '
    'if [ "${#all[@]}" -gt "$1" ]; then own=("${all[@]:$0:$1}"); '
    'export CUDA_VISIBLE_DEVICES="$(IFS=,; echo "${own[*]}")"; fi; shift; exec "$@"'
)


def gpu_share(job: Job, index: int) -> tuple[str, ...]:
    """Words before member number ``index`` of a job that leave it the GPUs behind those of the members before it.

    Slurm gives the same GPUs to steps that overlap.
    """
    members = job.members
    if not members[index].num_gpus or sum(member.num_gpus > 0 for member in members) < 2:
        return ()
    first = sum(member.num_gpus for member in members[:index])
    return ("bash", "-c", _SHARE, str(first), str(members[index].num_gpus))
