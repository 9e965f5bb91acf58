"""tiktoken is used where it gives the ids of the tokenizer, and nowhere else."""

import json
from dataclasses import replace

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from skills_pipe.errors import DataError
from skills_pipe.training.data.bpe.encoder import _END, FastEncoder
from skills_pipe.training.data.bpe.structure import GPT2_PATTERN, NotByteBpe, read_structure
from skills_pipe.training.data.bpe.verify import _first_difference, judge, probe_texts
from skills_pipe.training.data.build import BuildOptions, DataSettings, build_dataset
from skills_pipe.training.data.chunk import ChunkEncoder, Recipe
from skills_pipe.training.data.rows import Pieces, Segment
from skills_pipe.training.data.sources import DataSource
from skills_pipe.training.data.template import resolve_template
from tests.training.data import golden
from tests.training.tiny import chat_rows, tiny_tokenizer, write_jsonl

GPT4_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEXT = ["The theory of the thing: it's 12345 things, they're théories.\n\n  Then 99 more,\tthe end.\n"] * 30
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|im_end|>>"]


def splitting(pattern=GPT4_PATTERN, behavior="isolated"):
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior),
            pre_tokenizers.ByteLevel(use_regex=False, add_prefix_space=False),
        ]
    )


def trained(pre_tokenizer=None, normalizer=None, vocab_size=420, special=SPECIAL):
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizer or splitting()
    backend.decoder = decoders.ByteLevel()
    if normalizer:
        backend.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXT, trainer)
    return backend


def changed(backend, change):
    tree = json.loads(backend.to_str())
    change(tree)
    return Tokenizer.from_str(json.dumps(tree))


def wrapped(backend):
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>")


KINDS = {
    "gpt2": lambda: trained(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "gpt4": trained,
    "composed": lambda: trained(normalizer=normalizers.NFC()),
    "unsplit": lambda: trained(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)),
    "no token begins with another": lambda: trained(special=SPECIAL[:2]),
    "goldens": lambda: golden.tokenizer("chatml").backend_tokenizer,
}


@pytest.fixture(scope="module", params=KINDS)
def backend(request):
    return KINDS[request.param]()


def test_byte_level_bpe_is_found_equal(backend):
    verdict = judge(wrapped(backend), TEXT)
    assert verdict.structure is not None
    assert verdict.reason.startswith("tiktoken: equal to tokenizers on ")


pieces = st.sampled_from(
    [*SPECIAL, "<|im_", "the", " theory", "'s", "'S", "é", "e\u0301", "\n", "\r\n", "  ", "123", "\u00a0"]
)


texts = st.one_of(st.text(), st.lists(st.one_of(pieces, st.text(max_size=3))).map("".join))


def ids_of(encoder, *of_texts):
    return [ids.tolist() for ids in encoder.tokens(of_texts).each()]


@given(some=st.lists(texts, max_size=4))
def test_any_texts_get_the_ids_of_the_tokenizer(backend, some):
    fast = FastEncoder(backend, read_structure(backend))
    assert ids_of(fast, *some) == [backend.encode(text, add_special_tokens=False).ids for text in some]


@given(some=st.lists(st.sampled_from([_END, _END[:2], _END[1:], "a", " ", "", "\n"]), max_size=6))
def test_texts_that_hold_what_stands_between_texts_are_tokenised_as_any_other(some):
    backend = KINDS["no token begins with another"]()
    fast = FastEncoder(backend, read_structure(backend))
    joined = ["".join(some[:3]), "".join(some[3:])]
    assert ids_of(fast, *joined) == [backend.encode(text, add_special_tokens=False).ids for text in joined]


@pytest.mark.parametrize(("kind", "calls"), [("no token begins with another", 1), ("gpt4", 0)])
def test_texts_are_given_to_tiktoken_together_where_its_added_tokens_are_those_of_the_tokenizer(
    kind, calls, monkeypatch
):
    backend = KINDS[kind]()
    fast = FastEncoder(backend, read_structure(backend))
    made = []
    original = tiktoken.Encoding.encode_to_numpy
    monkeypatch.setattr(
        tiktoken.Encoding, "encode_to_numpy", lambda *args, **kwargs: made.append(1) or original(*args, **kwargs)
    )
    some = ["a<|im_end|>>", " the thing\n", "", "é"]
    assert ids_of(fast, *some) == [backend.encode(text, add_special_tokens=False).ids for text in some]
    assert len(made) == calls


def test_the_probes_find_another_splitting():
    backend = trained()
    structure = read_structure(backend)
    other = replace(structure, pattern=GPT2_PATTERN)
    assert _first_difference(backend, structure, list(probe_texts(structure))) is None
    assert _first_difference(backend, other, list(probe_texts(other))) is not None


def test_the_probes_find_one_merge_that_is_missing():
    backend = trained()
    structure = read_structure(backend)
    last = max(structure.ranks, key=structure.ranks.get)
    other = replace(structure, ranks={token: n for token, n in structure.ranks.items() if token != last})
    assert _first_difference(backend, other, list(probe_texts(structure))) is not None


def test_the_probes_find_added_tokens_that_are_read_as_text():
    backend = trained()
    structure = read_structure(backend)
    other = replace(structure, first_added={})
    assert _first_difference(backend, other, list(probe_texts(structure))) is not None


def _reversed_ids(tree):
    """The merges in another order than their ids."""
    tree["model"]["merges"].reverse()


REFUSED = {
    "WordPiece": lambda: Tokenizer(models.WordPiece({"a": 0, "[UNK]": 1}, unk_token="[UNK]")),
    "last pre-tokenizer": lambda: trained(pre_tokenizers.Metaspace()),
    "a space in front": lambda: trained(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "more than one rule": lambda: trained(
        pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    ),
    "all matches": lambda: trained(splitting(behavior="merged_with_next")),
    "normalises by Lowercase": lambda: trained(normalizer=normalizers.Lowercase()),
    "order of its merges": lambda: changed(trained(), _reversed_ids),
    "has dropout": lambda: changed(trained(), lambda tree: tree["model"].update(dropout=0.1)),
    "no token for the byte": lambda: changed(trained(), lambda tree: tree["model"]["vocab"].pop("Ā")),
    "has lstrip": lambda: _with_added(AddedToken("<x>", lstrip=True)),
}


def _with_added(token):
    backend = trained()
    backend.add_tokens([token])
    return backend


@pytest.mark.parametrize("reason", REFUSED)
def test_other_tokenizers_do_their_work_themselves_and_the_reason_is_told(reason):
    backend = REFUSED[reason]()
    with pytest.raises(NotByteBpe, match=reason):
        read_structure(backend)
    verdict = judge(
        wrapped(backend) if reason != "WordPiece" else PreTrainedTokenizerFast(tokenizer_object=backend), []
    )
    assert verdict.structure is None
    assert verdict.reason.startswith("tokenizers: ")
    assert reason in verdict.reason


def test_what_is_left_on_the_tokenizer_decides_nothing():
    used = tiny_tokenizer()
    used("x" * 9, truncation=True, max_length=4, padding="max_length")
    assert judge(used, ["a document of more than four tokens"]).structure is not None


def test_special_tokens_that_are_text_are_left_to_the_tokenizer():
    tokenizer = tiny_tokenizer()
    tokenizer.split_special_tokens = True
    verdict = judge(tokenizer, ["a document"])
    assert (verdict.structure, verdict.reason) == (None, "tokenizers: it takes special tokens for text")


def test_a_token_that_no_merge_leads_to_is_noticed():
    # tiktoken would give the piece "abc" this token; the tokenizer merges b and c first, and is stuck.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*alphabet, "bc", "ab", "abc"])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("b", "c"), ("a", "b"), ("ab", "c")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert backend.encode("abc").tokens == ["a", "bc"]
    with pytest.raises(NotByteBpe, match="its merges do not lead to its token b'abc'"):
        read_structure(backend)


def build(path, tokenizer, **options):
    template = resolve_template("default", tokenizer, None, "chat")
    settings = DataSettings(max_length=300)
    return build_dataset([DataSource(path=path)], tokenizer, template, settings, BuildOptions(**options))


def test_a_data_set_is_the_same_either_way_and_says_which_it_was(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", chat_rows(300))
    for tokenizer in (tiny_tokenizer(), golden.tokenizer("chatml")):
        fast = build(path, tokenizer, tiktoken_from=path.stat().st_size)
        slow, small = build(path, tokenizer, tiktoken=False), build(path, tokenizer)
        assert fast.fingerprint == slow.fingerprint == small.fingerprint
        assert fast.report.tokenized_by.startswith("tiktoken: equal to")
        assert slow.report.tokenized_by == "tokenizers: data.use_tiktoken is false"
        assert small.report.tokenized_by == "tokenizers: the data are few"
        assert dict(fast.report.describe())["tokenized by"] == fast.report.tokenized_by


def test_a_difference_that_no_probe_showed_is_refused_when_it_is_met():
    tokenizer = wrapped(trained())
    structure = read_structure(tokenizer.backend_tokenizer)
    wrong = replace(structure, pattern=GPT2_PATTERN)
    template = resolve_template(None, tokenizer, None, None)
    backend = tokenizer.backend_tokenizer
    text = next(t for t in probe_texts(structure) if _first_difference(backend, wrong, [t]) is not None)
    row = Pieces(segments=(Segment(text=text, trained=True),), where="rows.jsonl:7")
    for fast, fits in ((structure, True), (wrong, False)):
        recipe = Recipe(tokenizer=tokenizer, template=template, settings=DataSettings(max_length=9999), fast=fast)
        if fits:
            assert ChunkEncoder(recipe).encode([row]).lengths.sum() > 1
        else:
            with pytest.raises(DataError, match=r"different tokens \(rows\.jsonl:7\): set data\.use_tiktoken=false"):
                ChunkEncoder(recipe).encode([row])
