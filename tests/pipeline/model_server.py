"""A small server of the OpenAI protocol, started as a job's server in tests: `python model_server.py --model FOLDER
--num_gpus N --num_nodes N --port P`.

It adds the numbers of the question: a rule instead of a model, so that every answer is known. It needs the standard
library only.
"""

from __future__ import annotations

import argparse
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """Lists its model, and completes chats."""

    model = ""

    def do_GET(self) -> None:
        """``/health`` and ``/v1/models``."""
        self._answer(200, {"data": [{"id": self.model}]})

    def do_POST(self) -> None:
        """``/v1/chat/completions``."""
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if request["model"] != self.model:
            self._answer(404, {"error": f"no model {request['model']}"})
            return
        text = answer_to(request["messages"][-1]["content"])
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        self._answer(200, {"choices": [choice], "usage": {"completion_tokens": len(text.split())}})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def answer_to(question: str) -> str:
    """The sum of the numbers in the last line of a question."""
    numbers = [int(word) for word in re.findall(r"\d+", question.strip().splitlines()[-1])]
    return f"It is \\boxed{{{sum(numbers)}}}."


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--num_gpus", type=int, required=True)
    parser.add_argument("--num_nodes", type=int, required=True)
    options = parser.parse_args()
    Handler.model = options.model
    print("serving", options.model, "on port", options.port, flush=True)
    ThreadingHTTPServer(("127.0.0.1", options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
