"""A model hub on this machine that takes uploads: the endpoints that huggingface_hub asks, with what they were told."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.loopback import new_server, serving, url

TOKEN = "hf_" + "S3cret" * 5


class ModelHub:
    """Repositories of models, with every file of the latest commit.

    Attributes:
        url: where it listens.
        files: repository -> path -> contents.
        commits: repository -> messages, the oldest first.
        visibility: repository -> as it was asked for.
        asked: method and path of every request.
        refuse: path pattern -> (status, message) of requests that it refuses.
    """

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.commits: dict[str, list[str]] = {}
        self.visibility: dict[str, str] = {}
        self.asked: list[str] = []
        self.refuse: dict[str, tuple[int, str]] = {}
        self._objects: dict[str, bytes] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, headers, content = hub.answer(self.command, self.path, dict(self.headers), body)
                self.send_response(status)
                for key, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_HEAD = do_POST = do_PUT = answer

            def log_message(self, *_):
                pass

        self._server = new_server(Handler)
        self.url = url(self._server)

    @contextmanager
    def serving(self) -> Iterator[ModelHub]:
        """Answer requests inside of the block."""
        with serving(self._server):
            yield self

    def head(self, repo: str) -> str:
        """Hash of the latest commit."""
        return hashlib.sha1(f"{repo}@{len(self.commits[repo])}".encode()).hexdigest()

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> tuple[int, dict, bytes]:
        """Status, headers and contents of one answer."""
        path = target.partition("?")[0].replace("%2F", "/")
        self.asked.append(f"{method} {path}")
        for pattern, (status, message) in self.refuse.items():
            if re.search(pattern, path):
                return status, {"X-Error-Message": message}, b"{}"
        stored = re.fullmatch(r"/objects/([0-9a-f]{64})", path)
        if stored and method == "PUT":
            assert hashlib.sha256(body).hexdigest() == stored[1]
            self._objects[stored[1]] = body
            return 200, {}, b""
        if {key.lower(): value for key, value in headers.items()}.get("authorization") != f"Bearer {TOKEN}":
            return 401, {"X-Error-Message": "Invalid credentials in Authorization header"}, b"{}"
        return self._signed_in(method, path, body)

    def _signed_in(self, method: str, path: str, body: bytes) -> tuple[int, dict, bytes]:
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return _json({"warnings": [], "errors": []})
        for pattern, act in (
            (r"/api/models/([^/]+/[^/]+)/preupload/main", self._modes),
            (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self._batch),
            (r"/api/models/([^/]+/[^/]+)/commit/main", self._commit),
            (r"/api/models/([^/]+/[^/]+)(?:/revision/[^/]+)?", self._information),
            (r"/api/models/([^/]+/[^/]+)/tree/[^/]+", self._tree),
        ):
            found = re.fullmatch(pattern, path)
            if found and found[1] in self.files:
                return act(found[1], body)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)
        if file and file[2] in self.files.get(file[1], {}):
            content = self.files[file[1]][file[2]]
            etag = hashlib.sha1(content).hexdigest()
            return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": self.head(file[1])}, content
        known = file or re.match(r"/api/models/([^/]+/[^/]+)/tree/", path)
        return 404, {"X-Error-Code": "EntryNotFound" if known else "RepoNotFound"}, b"{}"

    def _create(self, wanted: dict[str, Any]) -> tuple[int, dict, bytes]:
        name = f"{wanted['organization'] or 'me'}/{wanted['name']}"
        status = 409 if name in self.files else 200
        if status == 200:
            self.files[name], self.commits[name] = {".gitattributes": b""}, []
            self.visibility[name] = wanted["visibility"]
        return status, {}, json.dumps({"url": f"{self.url}/{name}"}).encode()

    def _modes(self, repo: str, body: bytes) -> tuple[int, dict, bytes]:
        """Weights are stored apart, as the hub's .gitattributes say."""
        files = [
            {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular"}
            for f in json.loads(body)["files"]
        ]
        return _json({"files": [{**file, "shouldIgnore": False, "oid": None} for file in files]})

    def _batch(self, repo: str, body: bytes) -> tuple[int, dict, bytes]:
        objects = []
        for wanted in json.loads(body)["objects"]:
            actions = {"upload": {"href": f"{self.url}/objects/{wanted['oid']}"}}
            objects.append({**wanted, **({} if wanted["oid"] in self._objects else {"actions": actions})})
        return _json({"transfer": "basic", "objects": objects})

    def _commit(self, repo: str, body: bytes) -> tuple[int, dict, bytes]:
        files, message = dict(self.files[repo]), ""
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                message = value["summary"]
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self._objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        self.files[repo] = files
        self.commits[repo].append(message)
        head = self.head(repo)
        return _json({"commitUrl": f"{self.url}/{repo}/commit/{head}", "commitOid": head, "success": True})

    def _information(self, repo: str, body: bytes) -> tuple[int, dict, bytes]:
        siblings = [{"rfilename": path} for path in self.files[repo]]
        return _json(
            {
                "id": repo,
                "sha": self.head(repo),
                "siblings": siblings,
                "tags": [],
                "private": self.visibility[repo] == "private",
            }
        )

    def _tree(self, repo: str, body: bytes) -> tuple[int, dict, bytes]:
        listed = [
            {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for path, content in self.files[repo].items()
        ]
        return _json(listed)


def _json(value: Any) -> tuple[int, dict, bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()
