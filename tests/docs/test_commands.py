"""Every command and Python example of the documents is executed, in its order, in a world made for its document."""

import re
import tomllib

import pyarrow
import pyarrow.parquet
import pytest

from tests.docs.documents import DOCUMENTS, EXECUTED, LANGUAGES, ROOT, Block, blocks, commands
from tests.docs.world import (
    NOT_RUN,
    SMALLER,
    World,
    cluster,
    generations,
    launcher,
    models,
    not_run,
    of_python,
    of_shell,
    reason_not_to_run,
    rows,
    wide_model,
)
from tests.evaluation.benchmarks.test_gsm8k import stand_in_hub

NOTHING_RUNS = ()
WORLDS = {
    "CONTRIBUTING.md": NOTHING_RUNS,
    "README.md": (launcher, cluster),
    "docs/adapters.md": (launcher, models, wide_model, rows),
    "docs/architecture.md": (launcher, cluster),
    "docs/containers.md": (launcher, cluster),
    "docs/clusters.md": (launcher, cluster),
    "docs/data.md": (launcher, models, rows, cluster),
    "docs/data_preparation.md": (launcher, generations, models),
    "docs/evaluation.md": (launcher, models, cluster),
    "docs/models.md": (launcher, models, rows),
    "docs/nemo_run.md": (launcher,),
    "docs/run_cmd.md": (launcher, cluster),
    "docs/parallelism.md": (launcher, models, rows),
    "docs/runs.md": (launcher,),
    "docs/slurm.md": (launcher, cluster),
    "docs/training.md": (launcher, models, rows),
}
"""What the commands of each document find."""

SLOW = {f"docs/{name}.md" for name in ("adapters", "data", "data_preparation", "evaluation", "models", "training")}


def read(document):
    return blocks((ROOT / document).read_text())


def executed(document):
    return [block for block in read(document) if block.language in EXECUTED]


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    """Two problems of GSM8K, served as the hub does."""
    folder = tmp_path_factory.mktemp("hub")
    table = pyarrow.table({"question": ["How much is 1 + 1?", "And 2 + 2?"], "answer": ["#### 2", "#### 4"]})
    for split in ("train", "test"):
        pyarrow.parquet.write_table(table, folder / f"{split}.parquet")
    with stand_in_hub(folder) as endpoint:
        yield endpoint


@pytest.fixture
def world(tmp_path):
    """A world with nothing in it but ``ns``."""
    made = World(folder=tmp_path)
    launcher(made)
    return made


@pytest.mark.parametrize(
    "document",
    [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in DOCUMENTS if executed(name)],
)
def test_the_commands_of_a_document_work(document, tmp_path, hub):
    assert document in WORLDS, f"{document} has commands: say in WORLDS what they find"
    world = World(folder=tmp_path, variables={"HF_ENDPOINT": hub})
    for part in WORLDS[document]:
        part(world)
    for block in executed(document):
        check(world, block, document)


def check(world, block, document):
    """Run a block; it must end well and print what the document shows."""
    result = world.run(block)
    assert result.returncode == 0, f"{document}:{block.line} ends with {result.returncode}\n{result.stdout}"
    if block.expected is not None:
        assert world.plain(result.stdout) == world.plain(block.expected), f"{document}:{block.line} prints otherwise"


@pytest.mark.parametrize("text", ["false", "ns nemo_rl sft --output_dri=x", "ns frobnicate", "true | false | true"])
def test_a_broken_command_is_found(world, text):
    with pytest.raises(AssertionError, match="here:1 ends with"):
        check(world, Block(line=1, language="bash", text=text), "here")


def test_a_command_after_a_broken_one_does_not_hide_it(world):
    with pytest.raises(AssertionError, match="ends with"):
        check(world, Block(line=1, language="bash", text="ns frobnicate\nns --version"), "here")


def test_broken_python_is_found(world):
    text = "from skills_pipe.pipeline.cli import frobnicate"
    with pytest.raises(AssertionError, match="ends with 1"):
        check(world, Block(line=1, language="python", text=text), "here")


def test_other_output_than_shown_is_found(world):
    shown = Block(line=1, language="bash", text="echo three", expected="three\n")
    check(world, shown, "here")
    with pytest.raises(AssertionError, match="prints otherwise"):
        check(world, Block(line=1, language="bash", text="echo four", expected="three\n"), "here")


def test_a_plan_that_a_cluster_would_refuse_is_found(tmp_path):
    world = World(folder=tmp_path)
    for part in (launcher, cluster):
        part(world)
    command = "ns prepare_data gsm8k --cluster=slurm --data_dir={}"
    good, bad = (Block(line=1, language="bash", text=command.format(path)) for path in ("/workspace/a", "/nowhere/a"))
    check(world, good, "here")
    with pytest.raises(AssertionError, match="is on no mount of cluster 'slurm'"):
        check(world, bad, "here")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_blocks_are_of_languages_that_are_looked_at(document):
    assert {block.language for block in read(document)} <= set(LANGUAGES)


def test_no_block_of_commands_hides_without_a_language():
    for document in DOCUMENTS:
        for block in read(document):
            if block.language == "":
                assert not re.search(r"^(\$ |ns |python |make |pip )", block.text, re.MULTILINE), (document, block.line)


def all_commands():
    return [c for name in DOCUMENTS for b in executed(name) if b.language == "bash" for c in commands(b.text)]


@pytest.mark.parametrize("pattern", NOT_RUN)
def test_every_exception_is_needed(pattern):
    assert any(not_run(pattern, command) for command in all_commands())


def test_every_replacement_is_needed():
    texts = "".join(block.text for name in DOCUMENTS for block in executed(name))
    assert [long for long in SMALLER if long not in texts] == []


def named(group):
    found = (not_run(pattern, c) for pattern in NOT_RUN for c in all_commands() if f"<{group}>" in pattern)
    return {match[group] for match in found if match and match[group]}


def test_targets_of_make_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert {"demo", "test", "check"} <= named("target") <= targets


def test_what_is_installed_is_what_the_makefile_installs():
    makefile = (ROOT / "Makefile").read_text()
    assert named("torch") == set(re.findall(r"^TORCH := (\S+)", makefile, re.MULTILINE))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = {extra for group in named("extras") for extra in group.split(",")}
    assert wanted
    assert wanted <= set(extras)


@pytest.mark.parametrize(
    ("command", "runs"),
    [("make demo", False), ("make demo && rm -rf x", True), ("ns status", True), ("git clone", True)],
)
def test_only_whole_commands_are_excepted(command, runs):
    assert (reason_not_to_run(command) is None) is runs


def test_commands_for_a_cluster_keep_their_names_and_others_get_small_ones():
    model = next(iter(SMALLER))
    assert of_shell(f"ns x --hf_model={model}") == f"ns x --hf_model={SMALLER[model]}"
    assert of_shell(f"ns x \\\n  --cluster=a \\\n --hf_model={model}").endswith(f"--hf_model={model}")


def test_python_for_a_cluster_is_a_dry_run():
    assert (
        of_python('f(ctx=wrap_arguments("++a=1"), cluster="x")')
        == 'f(ctx=wrap_arguments("--dry_run ++a=1"), cluster="x")'
    )


def test_comments_are_no_commands_and_continued_lines_are_one():
    assert commands("# a\nls \\\n  -l\n\npwd\n") == ["ls \\\n  -l", "pwd"]


def test_output_is_taken_only_from_right_behind_a_block():
    first, second = blocks("```bash\na\n```\n\n```text\nA\n```\n"), blocks("```bash\na\n```\nb:\n```text\nA\n```\n")
    assert (first[0].expected, second[0].expected) == ("A\n", None)
