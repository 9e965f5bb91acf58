"""A webhook that remembers what it was told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from tests.loopback import new_server, serving, url


@dataclass
class Listener:
    """Its address, and the texts that came, with the status that it answers."""

    url: str = ""
    texts: list[str] = field(default_factory=list)
    status: int = 200


@contextmanager
def listening() -> Iterator[Listener]:
    """A listener on this machine, as long as it is entered."""
    listener = Listener()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/hook-with-a-secret" and self.headers["Content-Type"] == "application/json":
                listener.texts.append(json.loads(body)["text"])
            self.send_response(listener.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with serving(new_server(Handler)) as server:
        listener.url = f"{url(server)}/hook-with-a-secret"
        yield listener
