"""A dataset hub on this machine: the endpoints that huggingface_hub asks, answered from a dictionary of files."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from tests.loopback import new_server, serving, url

Files = Mapping[str, bytes]


class Hub:
    """Repositories of datasets: ``repositories[name][revision]`` are the files of a commit.

    Attributes:
        url: where it listens.
        asked: method and path of every request.
        token: what private repositories ask for.
    """

    def __init__(self, repositories: Mapping[str, Mapping[str, Files]], *, gated: tuple[str, ...] = ()) -> None:
        self.repositories = repositories
        self.gated = gated
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                hub.answer(self, body=True)

            def do_HEAD(self):
                hub.answer(self, body=False)

            def log_message(self, *_):
                pass

        self._server = new_server(Handler)
        self.url = url(self._server)

    @contextmanager
    def serving(self) -> Iterator[Hub]:
        """Answer requests inside of the block."""
        with serving(self._server):
            yield self

    @staticmethod
    def commit(repo: str, revision: str) -> str:
        """The commit that a branch points to."""
        return hashlib.sha1(f"{repo}@{revision}".encode()).hexdigest()

    def answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        """Answer one request."""
        path = request.path.partition("?")[0].replace("%2F", "/")
        self.asked.append(f"{request.command} {path}")
        information = re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/revision/(.+))?", path)
        if information:
            self._information(request, information[1], information[2] or "main")
            return
        tree = re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/tree/([0-9a-f]{40})", path)
        if tree:
            self._tree(request, tree[1], tree[2])
            return
        file = re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([0-9a-f]{40}|main)/(.+)", path)
        if file:
            self._file(request, file[1], file[2], file[3], body=body)
            return
        self._refuse(request, "EntryNotFound")

    def _revision(self, repo: str, revision: str) -> str | None:
        known = self.repositories.get(repo, {})
        return next((name for name in known if revision in (name, self.commit(repo, name))), None)

    def _information(self, request: BaseHTTPRequestHandler, repo: str, revision: str) -> None:
        if repo not in self.repositories:
            self._refuse(request, "RepoNotFound")
            return
        name = self._revision(repo, revision)
        if name is None:
            self._refuse(request, "RevisionNotFound")
            return
        siblings = [{"rfilename": file} for file in self.repositories[repo][name]]
        text = json.dumps(
            {"id": repo, "sha": self.commit(repo, name), "siblings": siblings, "tags": [], "gated": False}
        )
        self._send(request, 200, {"Content-Type": "application/json"}, text.encode(), body=True)

    def _tree(self, request: BaseHTTPRequestHandler, repo: str, revision: str) -> None:
        files = self.repositories[repo][self._revision(repo, revision) or ""]
        listed = [
            {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for name, content in files.items()
        ]
        self._send(request, 200, {"Content-Type": "application/json"}, json.dumps(listed).encode(), body=True)

    def _file(self, request: BaseHTTPRequestHandler, repo: str, revision: str, file: str, *, body: bool) -> None:
        name = self._revision(repo, revision)
        content = self.repositories.get(repo, {}).get(name or "", {}).get(file)
        if repo in self.gated:
            self._refuse(request, "GatedRepo", status=403)
        elif content is None or name is None:
            self._refuse(request, "EntryNotFound")
        else:
            etag = hashlib.sha1(content).hexdigest()
            headers = {"ETag": f'"{etag}"', "X-Repo-Commit": self.commit(repo, name)}
            self._send(request, 200, headers, content, body=body)

    def _refuse(self, request: BaseHTTPRequestHandler, code: str, status: int = 404) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": code}
        self._send(request, status, headers, b"{}", body=request.command == "GET")

    def _send(
        self, request: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str], content: bytes, *, body: bool
    ) -> None:
        request.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            request.send_header(key, value)
        request.end_headers()
        if body:
            request.wfile.write(content)
