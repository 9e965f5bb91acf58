"""Settings of the user for Slurm's programs, which would change what these answer.

``SQUEUE_PARTITION`` hides jobs, ``SLURM_TIME_FORMAT=relative`` tells no day.
"""

WITHOUT_HABITS = 'unset "${!SQUEUE_@}" "${!SACCT_@}"; export SLURM_TIME_FORMAT=%s'
"""Shell behind which all jobs are told, and times in Unix seconds, whatever the time zone of the cluster."""
