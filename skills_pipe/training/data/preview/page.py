"""Documents as one HTML page that needs nothing else: no scripts, no network, the data escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from skills_pipe.training.data.preview.document import Document, Token
from skills_pipe.training.data.preview.text import count_tokens, heading
from skills_pipe.training.data.preview.visible import visible

_STYLE: Final = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1b1f24; --quiet: #6a737d; --line: #d8dee4;
        --trained: #c9f2d0; --weighted: #fde9a8; --note: #9a6700; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14171b; --ink: #e6edf3; --quiet: #8b949e; --line: #30363d;
          --trained: #17502a; --weighted: #5c4813; --note: #e3b341; } }
body { margin: 0 auto; max-width: 70rem; padding: 1.5rem; background: var(--ground); color: var(--ink);
       font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.3rem; } h2 { font-size: 1rem; margin: 0 0 .4rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1.5rem; } dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; }
article { border-top: 1px solid var(--line); padding: 1rem 0; }
.turn { display: grid; grid-template-columns: 9rem 1fr; gap: 1rem; padding: .3rem 0; }
.who { color: var(--quiet); } .who b { color: var(--ink); display: block; overflow-wrap: anywhere; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font: 13px/1.6 ui-monospace, monospace; }
.t { border-radius: 2px; } .t:hover { outline: 1px solid var(--quiet); }
.on { background: var(--trained); } .part { background: var(--weighted); }
.note { color: var(--note); margin: 0; }
.t i { display: none; color: var(--quiet); font-size: 10px; font-style: normal; margin: 0 .3em 0 .1em; }
#ids:checked ~ main .t i { display: inline; } #ids:checked ~ main .t { border-right: 1px solid var(--line); }
@media (max-width: 40rem) { .turn { grid-template-columns: 1fr; gap: .2rem; } }
"""

Facts = Sequence[tuple[str, str]]


def page(title: str, facts: Facts, documents: Sequence[Document]) -> str:
    """The text of the page.

    Args:
        title: heading.
        facts: label and value of lines above the documents.
        documents: what is shown.
    """
    rows = "".join(f"<dt>{_safe(label)}</dt><dd>{_safe(value)}</dd>\n" for label, value in facts)
    articles = "".join(map(_article, documents))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_safe(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{_safe(title)}</h1>\n"
        f'<dl>\n{rows}</dl>\n<input type="checkbox" id="ids"> <label for="ids">show token ids</label>\n'
        f'<p><span class="t on">trained</span> <span class="t part">trained with a weight other than 1</span> '
        f"<span>given</span></p>\n<main>\n{articles}</main>\n</body>\n</html>\n"
    )


def _article(document: Document) -> str:
    notes = "".join(f'<p class="note">{_safe(note)}</p>\n' for note in document.notes)
    turns = "".join(_turn(role, tokens) for role, tokens in document.turns())
    return f"<article>\n<h2>{_safe(heading(document))}</h2>\n{notes}{turns}</article>\n"


def _turn(role: str | None, tokens: Sequence[Token]) -> str:
    trained = sum(token.weight != 0 for token in tokens)
    counts = count_tokens(len(tokens)) + (f"<br>{trained:,} trained" if trained else "")
    # The line break is no part of the text: HTML drops the first one inside <pre>.
    text = "".join(map(_token, tokens))
    return (
        f'<div class="turn"><div class="who"><b>{_safe(role or "text")}</b>{counts}</div>\n<pre>\n{text}</pre></div>\n'
    )


def _token(token: Token) -> str:
    kind = "t" if token.weight == 0 else "t on" if token.weight == 1 else "t part"
    weight = "" if token.weight in (0, 1) else f", weight {token.weight:g}"
    return f'<span class="{kind}" title="{token.id}{weight}">{_safe(token.text)}<i>{token.id}</i></span>'


def _safe(text: str) -> str:
    return escape(visible(text))
