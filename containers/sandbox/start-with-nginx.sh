#!/bin/sh
# The name under which the sandbox of NeMo-Skills is started: images of either kind serve. There is no nginx here, one
# server runs all programs. It listens where the job says that it does: on other addresses others could reach it.
exec python3 -I /opt/sandbox/server.py --host="${NEMO_SKILLS_SANDBOX_HOST:-127.0.0.1}" --port="${LISTEN_PORT:-6000}"
