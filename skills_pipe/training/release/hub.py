"""Put an exported model on the Hugging Face hub, as one commit.

::

    HF_TOKEN=... python -m skills_pipe.training.release.hub --model=results/final_hf_model --repo=my-org/my-model

A repository that does not exist is made, private unless ``--public``; one that anybody can read already is pushed to
with ``--public`` only. Weights of an earlier upload that the model does not have are removed in the same commit; other
files of the repository stay. The token is that of ``HF_TOKEN``, else that of ``hf auth login``.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import disable_progress_bars, logging

from skills_pipe.artifacts import manifest as manifests
from skills_pipe.artifacts.atomic import write_json
from skills_pipe.artifacts.manifest import Manifest
from skills_pipe.artifacts.names import MANIFEST
from skills_pipe.errors import OptionError, UserError
from skills_pipe.training.release.whole import check_whole

_CONNECTION_FAILED: type[Exception] = next(
    kind for kind in HfHubHTTPError.__mro__ if issubclass(kind, Exception) and kind.__name__ == "HTTPError"
)
"""What the HTTP library raises; which one it is differs among the versions of huggingface_hub."""

_QUERY = re.compile(r"(https?://[^\s?]+)\?\S+")
"""Addresses to upload to are signed: who has all of one may write there."""

_WEIGHTS = re.compile(r".*\.safetensors(\.index\.json)?")
_WHAT_TO_DO = {
    401: "set HF_TOKEN to a token of the hub, or run `hf auth login`",
    403: "use a token that may write to this repository",
    404: "check the name of the organisation",
}


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """Where a model lies on the hub.

    Attributes:
        repo: ``name`` or ``org/name``, as the hub knows it.
        commit: hash of the commit that holds exactly this model.
        url: of that commit.
        model: hash of the contents of the model.
    """

    repo: str
    commit: str
    url: str
    model: str


def push(model: Path, repo: str, *, public: bool = False) -> Pushed:
    """Upload a whole model; readers see the files of before or all of the new ones.

    Raises:
        CheckpointError: the model is damaged or not finished.
        OptionError: the hub refuses, or does not answer; or anybody could read what is meant to be private.
    """
    manifest = check_whole(model)
    if get_token() is None:
        raise OptionError("there is no token for the Hugging Face hub", where="HF_TOKEN", fix=_WHAT_TO_DO[401])
    api = HfApi()
    with _refusals_told(repo):
        name = api.create_repo(repo, private=not public, exist_ok=True).repo_id
        if not public and not api.model_info(name).private:
            raise OptionError(
                f"anybody can read what is pushed to {name}",
                where="--repo",
                fix="make it private, choose another one, or say --public (of ns: --hub_public)",
            )
        paths = [*sorted(manifest.files), MANIFEST]
        stale = [path for path in api.list_repo_files(name) if _WEIGHTS.fullmatch(path) and path not in paths]
        commit = api.create_commit(
            name,
            operations=[
                *(CommitOperationAdd(path_in_repo=path, path_or_fileobj=model / path) for path in paths),
                *(CommitOperationDelete(path_in_repo=path) for path in stale),
            ],
            commit_message=_message(manifest),
        )
        return Pushed(repo=name, commit=commit.oid, url=commit.commit_url, model=manifest.digest)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of :func:`push`."""
    parser = argparse.ArgumentParser(
        prog="python -m skills_pipe.training.release.hub", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of the exported model")
    parser.add_argument("--repo", required=True, metavar="[ORG/]NAME", help="repository on the hub")
    parser.add_argument("--public", action="store_true", help="anyone may read the repository")
    parser.add_argument("--report", type=Path, help="JSON file to write to where it is now")
    given = parser.parse_args(argv)
    disable_progress_bars()
    logging.set_verbosity_error()
    try:
        pushed = push(given.model, given.repo, public=given.public)
        if given.report is not None:
            write_json(given.report, asdict(pushed))
            manifests.seal(given.report, kind="hub_commit", facts=asdict(pushed))
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"pushed to {pushed.url}")
    return 0


def _message(manifest: Manifest) -> str:
    facts = manifest.facts
    if "averaged_from" in facts:
        return f"Mean of steps {', '.join(str(step) for step in facts['averaged_from'])}"
    return f"Step {facts['step']}" if "step" in facts else "Model"


@contextmanager
def _refusals_told(repo: str) -> Iterator[None]:
    """What the hub, or the way to it, does not let through, in one line that does not hold the token."""
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        # Messages of the library go over several lines, and name the request.
        reason = _plain(error.server_message or f"it answers {status}")
        raise OptionError(
            f"the hub does not take {repo}: {reason}", where="--repo", fix=_WHAT_TO_DO.get(status, "try again later")
        ) from None
    except (_CONNECTION_FAILED, ConnectionError) as error:
        # The latter where HF_HUB_OFFLINE is set.
        raise OptionError(
            f"the hub cannot be reached: {_plain(str(error)) or type(error).__name__}",
            where="HF_ENDPOINT",
            fix="push from a machine that reaches it; the model stays where it is",
        ) from None
    except (RuntimeError, OSError) as error:
        # Of a file that does not arrive, with the request as its cause.
        cause = error.__cause__
        reason = f" {cause.server_message or ''}" if isinstance(cause, HfHubHTTPError) else ""
        raise OptionError(
            f"{repo} cannot be pushed: {_plain(str(error) + reason)}",
            where="--repo",
            fix="push again; the model stays where it is",
        ) from None
    except ValueError as error:
        # Names that no repository can have, and cards that the hub refuses.
        raise OptionError(f"{repo} cannot be pushed: {_plain(str(error))}", where="--repo") from None


def _plain(text: str) -> str:
    """The text as one line, without the token and without what signs an address."""
    token = get_token()
    line = _QUERY.sub(r"\1", " ".join(text.split()))
    return line.replace(token, "***") if token else line


if __name__ == "__main__":
    sys.exit(main())
