"""Models and data sets on the Hugging Face hub: whether this user may read them, and how large the models are.

One request for each, for the ``config.json`` of a model, all at once and beside the other checks; the dry run waits for
them no longer than :data:`SECONDS`. Where the hub does not answer, nothing is known and nothing is wrong.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from skills_pipe.pipeline.checks.finding import Checked, Finding, error, warning
from skills_pipe.pipeline.decisions.fingerprint import HUB_DATASET

SECONDS = 3.0
"""How long the hub may take."""

_ENDPOINT = "https://huggingface.co"
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class HubModel:
    """What the hub says about a model, or a data set.

    Attributes:
        status: of HTTP; None if there was no answer.
        code: the hub's own word for what is wrong: ``GatedRepo``, ``RepoNotFound``, ``EntryNotFound``.
        config: text of its ``config.json``; of a data set, anything.
    """

    status: int | None = None
    code: str = ""
    config: bytes | None = None


class HubQuestions:
    """Requests that are under way."""

    def __init__(self, names: Iterable[str], *, token: str | None) -> None:
        """Ask for models by their ids, ``org/name``, and data sets (``hf://datasets/``), with the token of the jobs."""
        self._answers: dict[str, Future[HubModel]] = {}
        for name in dict.fromkeys(names):
            answer: Future[HubModel] = Future()
            self._answers[name] = answer
            # A daemon: looking up a host cannot be interrupted, and must not keep the launcher from ending.
            threading.Thread(target=_ask, args=(name, token, answer), daemon=True).start()

    @property
    def names(self) -> tuple[str, ...]:
        """The models and data sets."""
        return tuple(self._answers)

    def answers(self) -> dict[str, HubModel]:
        """Name -> what the hub has said; waits for it."""
        return {name: _result(answer) for name, answer in self._answers.items()}


def offline() -> bool:
    """Whether the user wants nobody to ask the hub."""
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")


def shown(name: str) -> str:
    """A name as people write it."""
    return name.removeprefix(HUB_DATASET)


def cache_folder(name: str) -> str:
    """What the folder is called that keeps downloads of a model or data set."""
    kind = "datasets" if name.startswith(HUB_DATASET) else "models"
    return f"{kind}--{shown(name).replace('/', '--')}"


def check_hub(models: Mapping[str, HubModel], *, cached: frozenset[str], token: bool) -> Checked:
    """Findings on models of the hub.

    Args:
        models: what the hub says.
        cached: those that the jobs have in their cache: they will not need the hub.
        token: whether jobs get one.
    """
    found = {name: list(_judge(name, model, token=token)) for name, model in models.items()}
    # The hub itself always names what is wrong; a proxy, or something that stands in for the hub, may not.
    silent = [name for name, model in models.items() if model.config is None and not found[name]]
    readable = [name for name, model in models.items() if model.config is not None]
    return Checked(
        subject="Hugging Face hub",
        findings=tuple(
            warning(finding.what, fix=finding.fix) if name in cached else finding
            for name, findings in found.items()
            for finding in findings
        ),
        left_out=f"it says nothing about {', '.join(map(shown, silent))}" if silent else None,
        note=f"{', '.join(map(shown, readable))} can be read" if readable else "",
    )


def _judge(name: str, model: HubModel, *, token: bool) -> Iterator[Finding]:
    page = f"{_endpoint()}/{name.removeprefix('hf://')}"
    kind, name = ("dataset" if name.startswith(HUB_DATASET) else "model"), shown(name)
    if model.code == "GatedRepo" or (model.status == 403 and not model.code):
        fix = f"accept its conditions at {page}" + ("" if token else ", and export HF_TOKEN")
        yield error(f"{name} is not open to everybody, and you may not read it", where="Hugging Face hub", fix=fix)
    elif (model.status == 401 and not model.code) or model.code == "RepoNotFound":
        fix = f"correct it, or write ./{name} for a folder"
        # The hub answers the same for a private model, so as not to give it away.
        fix += "" if token else "; export HF_TOKEN if it is private"
        yield error(f"there is no {kind} {name} on the hub that you may read", where="Hugging Face hub", fix=fix)
    elif model.code == "EntryNotFound" and kind == "model":
        yield error(f"{name} has no config.json: it is no model of transformers", where="Hugging Face hub")


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT") or _ENDPOINT


def _result(answer: Future[HubModel]) -> HubModel:
    try:
        return answer.result(SECONDS + 0.5)
    except TimeoutError:
        return HubModel()


def _ask(name: str, token: str | None, answer: Future[HubModel]) -> None:
    # Imported here, in the thread: it takes as long as all of a plan.
    import http.client
    import urllib.error
    import urllib.request

    class SameHost(urllib.request.HTTPRedirectHandler):
        """Follows redirections, and shows the token to nobody else."""

        def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
            new = super().redirect_request(req, fp, code, msg, headers, newurl)
            if new is not None and new.host != req.host:
                new.remove_header("Authorization")
            return new

    question = f"/{name}/resolve/main/config.json"
    if name.startswith(HUB_DATASET):
        question = f"/api/{name.removeprefix('hf://')}/auth-check"
    url = f"{_endpoint()}{question}"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.build_opener(SameHost).open(request, timeout=SECONDS) as response:
            answer.set_result(HubModel(status=response.status, config=response.read(_MOST_BYTES)))
    except urllib.error.HTTPError as refusal:
        answer.set_result(HubModel(status=refusal.code, code=refusal.headers.get("X-Error-Code", "")))
    except (OSError, ValueError, http.client.HTTPException):
        answer.set_result(HubModel())
