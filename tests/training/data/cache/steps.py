"""What each step of the making of a data set gives for some fixed input, as hashes.

The golden file holds them with the version of each step. After a change that was meant: raise the version of the step
in ``cache/key.py``, so that nobody goes on training on what the old code made, and run ``python -m
tests.training.data.cache.steps``.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory

from skills_pipe.errors import DataError
from skills_pipe.training.data.build import BuildOptions, DataSettings, build_dataset, mask_rules
from skills_pipe.training.data.cache.key import STEPS
from skills_pipe.training.data.encode import SampleEncoder
from skills_pipe.training.data.mask import make_samples
from skills_pipe.training.data.rows import Conversation, Pieces
from skills_pipe.training.data.sources import DataSource, read_rows
from skills_pipe.training.data.sources.aligner_chat import AlignerChat
from skills_pipe.training.data.sources.aligner_prompt_response import AlignerPromptResponse
from skills_pipe.training.data.sources.alpaca import Alpaca
from skills_pipe.training.data.sources.conversations import Conversations
from skills_pipe.training.data.sources.open_assistant import OpenAssistant
from skills_pipe.training.data.sources.squad import Squad
from skills_pipe.training.data.sources.texts import Texts
from skills_pipe.training.data.template import PASSTHROUGH, resolve_template
from tests.training.data.families import TEMPLATES, tokenizer, unmarked

GOLDEN = Path(__file__).parent / "golden" / "steps.json"

CHAT = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": "one and\n\none? "},
    {"role": "assistant", "content": "<think>\nwell\n</think>\n\nIt is 2."},
    {"role": "user", "content": "é 文 🦊"},
    {"role": "assistant", "content": "\n\nThat is 21.\n"},
]
VALUES = [
    {"messages": CHAT},
    {"messages": CHAT[1:], "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
    {"input": "q", "output": "a"},
    {"messages": CHAT[:2]},
    {"question": "q", "answers": {"text": ["a"]}, "context": "c"},
    {"instruction": "i", "input": "q", "output": "a"},
    {
        "system": "s",
        "conversations": [{"from": "User", "value": "q"}, {"from": "Assistant", "value": "a"}],
        "mask": "User",
    },
    {"prompt": "q", "response": "a"},
    {"text": "t"},
    ["q", "a"],
    "t",
    1,
    None,
]
FORMATS = {
    "conversations": Conversations(),
    "with prompts": Conversations(system_prompt="be\n", prompt="Q: {}"),
    "alpaca": Alpaca(),
    "squad": Squad(),
    "open assistant": OpenAssistant(),
    "aligner chat": AlignerChat(),
    "aligner prompt and response": AlignerPromptResponse(),
    "texts": Texts(),
}
SETTINGS = {
    "as it comes": {},
    "last turn": {"only_final": True},
    "all": {"answers_only": False},
    "headers": {"train_on_header": True},
    "no ends": {"add_bos": False, "add_eos": False},
    "whole": {"tokenize": "whole"},
    "apart": {"tokenize": "segments"},
}


def rows() -> dict[str, str]:
    """What is read of files."""
    found = {}
    with TemporaryDirectory() as name:
        path = Path(name) / "rows.jsonl"
        path.write_text("".join(json.dumps(value) + "\n" for value in VALUES) + "{\n\n")
        for kind, form in FORMATS.items():
            found[kind] = _hash([_plain(row) for row in read_rows(DataSource(path=path, format=form))])
    return found


def _plain(row):
    """What a row is, without where it stands."""
    if isinstance(row, Conversation):
        return row.messages, row.tools, row.form
    # How the fault of a row is worded makes no other data set.
    return (_segments(row.segments), row.stop) if isinstance(row, Pieces) else "a bad row"


def _segments(segments):
    return [(segment.text, segment.trained, segment.weight, segment.cut) for segment in segments]


def _documents():
    for family, text in {**TEMPLATES, **{f"{n}, unmarked": unmarked(t) for n, t in TEMPLATES.items()}}.items():
        for name, changes in SETTINGS.items():
            settings = DataSettings(max_length=1000, **changes)
            template = resolve_template(text, tokenizer(), None, "chat")
            samples = []
            for messages in (CHAT, CHAT[1:], CHAT[1:3]):
                row = Conversation(messages=messages, tools=None, form="chat", where="test")
                try:
                    samples += make_samples(row, template, mask_rules(tokenizer(), settings))
                except DataError as error:
                    samples.append(str(error))
            yield f"{family}: {name}", samples


def documents() -> dict[str, str]:
    """What templates and masks make of conversations."""
    return {
        name: _hash(
            [
                each if isinstance(each, str) else (_segments(each.segments), each.turns, each.stopped, each.tokenize)
                for each in samples
            ]
        )
        for name, samples in _documents()
    }


def tokens() -> dict[str, str]:
    """Ids and masks of documents."""
    found = {}
    for name, samples in _documents():
        encoded = SampleEncoder(tokenizer()).encode([sample for sample in samples if not isinstance(sample, str)])
        found[name] = _hash([(each.input_ids.tolist(), each.loss_mask.tolist()) for each in encoded])
    return found


def limits() -> dict[str, str]:
    """What is left of documents that are too long, or have nothing to train, or begin twice."""
    found = {}
    with TemporaryDirectory() as name:
        path = Path(name) / "rows.jsonl"
        pair = {"input": "<s><s>q", "output": "a"}
        path.write_text(
            "".join(json.dumps(value) + "\n" for value in ({"messages": CHAT[1:]}, pair, {"messages": CHAT[1:3]}))
        )
        for length in (20, 60, 100, 1000):
            for overlong in ("drop", "truncate"):
                template = resolve_template(
                    PASSTHROUGH if length == 20 else TEMPLATES["chatml"], tokenizer(), None, None
                )
                settings = DataSettings(max_length=length, overlong=overlong)
                made = build_dataset([DataSource(path=path)], tokenizer(), template, settings, BuildOptions())
                counts = [getattr(made.report, count) for count in _COUNTS]
                found[f"{overlong} at {length}"] = _hash([made.fingerprint, counts])
    return found


_COUNTS = ("documents", "dropped", "truncated", "turns", "turns_without_stop", "doubled_bos", "straddling", "targets")


def made() -> dict[str, dict[str, str]]:
    """What each step makes."""
    return {"rows": rows(), "documents": documents(), "tokens": tokens(), "limits": limits()}


def _hash(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]


def main() -> None:
    """Write the golden file, unless a step makes something else under the same version."""
    new = made()
    old = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {"versions": {}, "made": {}}
    for step, version in old["versions"].items():
        before = old["made"][step]
        if version == STEPS.get(step) and any(new[step].get(name) != value for name, value in before.items()):
            raise SystemExit(
                f"{step}: other than before; raise STEPS[{step!r}] in skills_pipe/training/data/cache/key.py"
            )
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps({"versions": dict(STEPS), "made": new}, indent=1) + "\n")


if __name__ == "__main__":
    main()
