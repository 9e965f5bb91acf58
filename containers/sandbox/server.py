"""Runs programs that are sent to it, each as a process with limits of its own, and tells what they have printed.

    GET  /health    200
    POST /execute   {"generated_code": "print(1)", "language": "python", "timeout": 10, "std_input": "",
                     "max_output_characters": 1000}
                 -> {"process_status": "completed" | "error" | "timeout", "stdout": "1\\n", "stderr": ""}

These are the requests of NeMo-Skills' clients. A program has a folder of its own, which is gone when it ends, and
leaves no process of its session behind. Only the standard library is needed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any

LANGUAGES = {"python": (sys.executable, "-I"), "shell": ("bash", "--norc")}
"""Language -> the words before the path of a program."""
MAX_SECONDS = 600.0
MAX_REQUEST_BYTES = 16 * 2**20
MAX_OUTPUT_BYTES = 4 * 2**20
MEMORY_BYTES = 8 * 2**30
FILE_BYTES = 2**30


@dataclass(frozen=True)
class Program:
    """A program, and what it may take."""

    language: str
    code: str
    given: str
    seconds: float
    characters: int

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Program:
        """What a client has sent; ValueError, KeyError or TypeError where it makes no sense."""
        language = value.get("language", "python")
        if language not in LANGUAGES:
            raise ValueError(f"this sandbox knows {' and '.join(LANGUAGES)}, not {language!r}")
        return cls(
            language=language,
            code=str(value["generated_code"]),
            given=str(value.get("std_input") or ""),
            seconds=min(float(value.get("timeout", 10.0)), MAX_SECONDS),
            characters=int(value.get("max_output_characters", 1000)),
        )

    def run(self) -> dict[str, str]:
        """Run it, and end with it all that it has started."""
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            # In a file, so that its own input is free for what was sent along.
            path = Path(folder, ".program")
            path.write_text(self.code, encoding="utf-8")
            process = subprocess.Popen(
                (*LANGUAGES[self.language], str(path)),
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                cwd=folder,
                env={"PATH": os.environ.get("PATH", os.defpath), "HOME": folder, "TMPDIR": folder, "LC_ALL": "C.UTF-8"},
                start_new_session=True,
                preexec_fn=_limit,
            )
            status = self._wait(process)
            return {"process_status": status, "stdout": self._read(out), "stderr": self._read(err)}

    def _wait(self, process: subprocess.Popen[bytes]) -> str:
        try:
            process.communicate(self.given.encode(), timeout=self.seconds)
        except subprocess.TimeoutExpired:
            return "timeout"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return "completed" if process.returncode == 0 else "error"

    def _read(self, file: IO[bytes]) -> str:
        file.seek(0)
        return file.read(MAX_OUTPUT_BYTES).decode(errors="replace")[: self.characters]


class Handler(BaseHTTPRequestHandler):
    """Two addresses, JSON in and out."""

    def do_GET(self) -> None:
        """Whether it runs."""
        if self.path == "/health":
            self._send(200, {"status": "healthy"})
        else:
            self._send(404, {"error": "not found"})

    def do_POST(self) -> None:
        """Run a program."""
        size = int(self.headers.get("Content-Length") or 0)
        if self.path != "/execute":
            self._send(404, {"error": "not found"})
        elif size > MAX_REQUEST_BYTES:
            self._send(413, {"error": f"a request has at most {MAX_REQUEST_BYTES} bytes"})
        else:
            self._execute(self.rfile.read(size))

    def log_message(self, format: str, *values: Any) -> None:
        """Say nothing: what clients send is no matter of the log."""

    def _execute(self, body: bytes) -> None:
        try:
            program = Program.from_json(json.loads(body))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._send(400, {"error": f"the request is not understood: {error!r}"})
            return
        self._send(200, program.run())

    def _send(self, code: int, value: dict[str, str]) -> None:
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def main() -> None:
    """Serve until somebody ends it."""
    parser = argparse.ArgumentParser(description="Runs programs that are sent to it.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at")
    parser.add_argument("--port", type=int, default=6000, help="port to listen at; 0 takes a free one")
    options = parser.parse_args()
    server = ThreadingHTTPServer((options.host, options.port), Handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"listening at port {server.server_address[1]}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


def _limit() -> None:
    """What a program may take, set in its own process."""
    for kind, most in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))


if __name__ == "__main__":
    main()
