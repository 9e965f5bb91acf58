"""A model on the hub: one commit, the same files, and never a token in what is said."""

import json
import shutil

import pytest

from skills_pipe.artifacts import manifest as manifests
from skills_pipe.training.checkpoint.export import Export, export
from tests.training import launch
from tests.training.launch import environment, python
from tests.training.release.model_hub import TOKEN, ModelHub

REPO = "my-org/my-model"


@pytest.fixture
def hub():
    with ModelHub().serving() as made:
        yield made


def push(hub, model, *arguments, token=TOKEN, **variables):
    """Run the program in a process of its own: the library reads its variables when it is imported."""
    tokens = {} if token is None else {"HF_TOKEN": token}
    home = {"HF_HOME": str(model.parent / "hf-home"), "HF_HUB_DISABLE_XET": "1", "HF_ENDPOINT": hub.url}
    env = {name: value for name, value in environment(**home, **variables).items() if name != "HF_TOKEN"} | tokens
    ended = launch.run(python("skills_pipe.training.release.hub", f"--model={model}", *arguments), env)
    assert TOKEN not in ended.stdout
    return ended


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_pushed_is_the_model_in_one_private_commit(hub, model, tmp_path):
    report = tmp_path / "pushed.json"
    ended = push(hub, model, f"--repo={REPO}", f"--report={report}")
    assert ended.returncode == 0, ended.stdout
    assert {path: data for path, data in hub.files[REPO].items() if path != ".gitattributes"} == contents(model)
    assert (hub.commits[REPO], hub.visibility[REPO]) == (["Step 10"], "private")
    said = json.loads(report.read_text())
    assert (said["repo"], said["commit"]) == (REPO, hub.head(REPO))
    assert said["model"] == manifests.read(model).digest
    assert manifests.damage(report, manifests.read(report)) == []
    assert TOKEN not in report.read_text()


def test_a_reader_loads_it_from_the_hub(hub, model, tmp_path):
    assert push(hub, model, f"--repo={REPO}", "--public").returncode == 0
    assert hub.visibility[REPO] == "public"
    code = (
        "import sys; from transformers import AutoModelForCausalLM as M, AutoTokenizer as T\n"
        f"theirs, ours = (M.from_pretrained(name).state_dict() for name in ({REPO!r}, sys.argv[1]))\n"
        "assert all(bool((theirs[name] == value).all()) for name, value in ours.items())\n"
        f"assert T.from_pretrained({REPO!r}).chat_template == T.from_pretrained(sys.argv[1]).chat_template\n"
    )
    variables = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
    ended = launch.run([python("x")[0], "-c", code, str(model)], environment(**variables))
    assert ended.returncode == 0, ended.stdout


def test_weights_of_before_go_and_other_files_stay(hub, run, tmp_path):
    many = export(Export(training_folder=run, output=tmp_path / "many", step="5", max_shard_size=20_000))
    assert push(hub, many, f"--repo={REPO}").returncode == 0
    hub.files[REPO]["LICENSE"] = b"theirs"
    one = export(Export(training_folder=run, output=tmp_path / "one", step="10"))
    assert push(hub, one, f"--repo={REPO}").returncode == 0
    assert hub.commits[REPO] == ["Step 5", "Step 10"]
    assert hub.files[REPO].keys() - contents(one).keys() == {".gitattributes", "LICENSE"}


def test_a_repository_that_anybody_reads_gets_a_model_only_when_told_so(hub, model):
    assert push(hub, model, f"--repo={REPO}", "--public").returncode == 0
    hub.files[REPO]["README.md"] = b"theirs"
    before = dict(hub.files[REPO])

    refused = push(hub, model, f"--repo={REPO}")

    assert (refused.returncode, hub.commits[REPO], hub.files[REPO]) == (2, ["Step 10"], before)
    assert f"anybody can read what is pushed to {REPO}" in refused.stdout
    assert push(hub, model, f"--repo={REPO}", "--public").returncode == 0


@pytest.mark.parametrize("place", ["/objects/batch", "/objects/[0-9a-f]{64}"])
def test_nothing_is_committed_when_an_upload_fails(hub, model, place):
    hub.refuse[place] = (403, "quota")
    ended = push(hub, model, f"--repo={REPO}")
    assert (ended.returncode, hub.commits[REPO], set(hub.files[REPO])) == (2, [], {".gitattributes"})
    # Addresses to upload to are signed: who has one may write.
    assert ended.stdout.count("\n") == 1
    assert "/objects/" not in ended.stdout
    hub.refuse.clear()
    assert push(hub, model, f"--repo={REPO}").returncode == 0
    assert hub.commits[REPO] == ["Step 10"]


@pytest.mark.parametrize(
    ("token", "repo", "message"),
    [
        (None, REPO, "there is no token for the Hugging Face hub (HF_TOKEN)"),
        ("hf_wrong", REPO, "Invalid credentials in Authorization header"),
        (TOKEN, "my org/my model", "cannot be pushed"),
    ],
)
def test_what_the_hub_does_not_take_is_told_in_one_line(hub, model, token, repo, message):
    ended = push(hub, model, f"--repo={repo}", token=token)
    assert ended.returncode == 2
    assert message in ended.stdout
    assert ended.stdout.count("\n") == 1
    assert hub.files == {}


def test_a_token_in_an_answer_is_not_repeated(hub, model):
    hub.refuse["/api/repos/create"] = (403, f"the token {TOKEN} may not write here")
    ended = push(hub, model, f"--repo={REPO}")
    assert ended.returncode == 2
    assert "the token *** may not write here" in ended.stdout


def test_a_hub_that_is_not_there_is_told(model):
    gone = ModelHub()
    with gone.serving():
        pass
    ended = push(gone, model, f"--repo={REPO}")
    assert ended.returncode == 2
    assert "the hub cannot be reached" in ended.stdout


def test_an_offline_job_pushes_nothing(hub, model):
    ended = push(hub, model, f"--repo={REPO}", HF_HUB_OFFLINE="1")
    assert (ended.returncode, hub.asked) == (2, [])
    assert ended.stdout.count("\n") == 1
    assert "the hub cannot be reached" in ended.stdout
    assert "offline" in ended.stdout


def test_a_damaged_model_is_not_pushed(hub, model, tmp_path):
    other = shutil.copytree(model, tmp_path / "model")
    (other / "model.safetensors").write_bytes(b"")
    ended = push(hub, other, f"--repo={REPO}")
    assert ended.returncode == 2
    assert "model.safetensors: 0 bytes" in ended.stdout
    assert hub.asked == []
