"""Links between the documents, and the files that they mention."""

import re

import pytest

from tests.docs.documents import DOCUMENTS, ROOT

_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_OUTSIDE = re.compile(r"[a-z]+://|mailto:")

ROOMS = tuple(f"{entry.name}/" for entry in ROOT.iterdir() if entry.is_dir() and not entry.name.startswith("."))
"""A word in code that begins with one of these is a path of the repository."""

_PLACEHOLDER = re.compile(r"[<>{}*$\s]|NAME")


def prose(text):
    return _FENCED.sub("", text)


def broken_links(text, folder):
    """Links to files that are not there, or to headings that no document has."""
    targets = [target for target in _LINK.findall(prose(text)) if not _OUTSIDE.match(target)]
    return [target for target in targets if not _leads_somewhere(target, text, folder)]


def _leads_somewhere(target, text, folder):
    path, _, heading = target.partition("#")
    file = folder / path
    if path and not file.exists():
        return False
    return not heading or heading in headings(file.read_text() if path else text)


def headings(text):
    """Names by which headings are linked, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def missing_files(text):
    """Paths of the repository in code words that are not there."""
    words = [word for word in _CODE.findall(prose(text)) if word.startswith(ROOMS) and not _PLACEHOLDER.search(word)]
    return [word for word in words if not (ROOT / word).exists()]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    path = ROOT / document
    assert broken_links(path.read_text(), path.parent) == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_mentioned_files_exist(document):
    assert missing_files((ROOT / document).read_text()) == []


def test_a_broken_link_is_found():
    text = "# One Title\n[a](no.md) [b](README.md#nothing) [c](#one-title) [d](#two) [e](https://example.org)"
    assert broken_links(text, ROOT) == ["no.md", "README.md#nothing", "#two"]


def test_a_file_that_is_gone_is_found():
    text = "`docs/none.md`, `docs/evaluation.md`, `tests/`, `skills_pipe/pipeline/commands/<name>.py`, `other/x`"
    assert missing_files(text) == ["docs/none.md"]
