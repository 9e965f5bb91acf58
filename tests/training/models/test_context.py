"""Pieces of a row that look at the whole of it: each token is one rank's, and sees what it sees in one process."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from skills_pipe.training.data.batches import IGNORE
from skills_pipe.training.models.attention import Documents, packed_attention
from skills_pipe.training.models.context import ContextGroup, Share, Stretch
from skills_pipe.training.models.row import Row

CPU = torch.device("cpu")
LAYER = nn.Identity()


@dataclass(frozen=True)
class Group:
    """Size and rank of a process group: all that dividing a row asks for."""

    ranks: int
    number: int = 0

    def size(self) -> int:
        return self.ranks

    def rank(self) -> int:
        return self.number


def shares(lengths: tuple[int, ...], ranks: int) -> list[Share]:
    return [ContextGroup(group=Group(ranks, rank)).share(lengths, CPU) for rank in range(ranks)]


@st.composite
def rows(draw) -> tuple[tuple[int, ...], int]:
    """Lengths of the documents of a row that so many ranks can share, and the ranks."""
    ranks = draw(st.integers(1, 4))
    lengths = draw(st.lists(st.integers(1, 30), min_size=1, max_size=6))
    missing = -sum(lengths) % (2 * ranks)
    return (*lengths, *([missing] if missing else [])), ranks


@given(rows())
def test_every_token_belongs_to_one_rank_and_each_rank_has_as_many(row):
    lengths, ranks = row
    tokens = torch.arange(sum(lengths))[None]

    parts = [share.own(tokens) for share in shares(lengths, ranks)]

    assert {part.shape[1] for part in parts} == {sum(lengths) // ranks}
    assert torch.equal(torch.cat(parts, dim=1).sort(dim=1).values, tokens)


@given(rows())
def test_a_piece_looks_from_the_start_of_its_first_document(row):
    lengths, ranks = row
    starts = [sum(lengths[:index]) for index in range(len(lengths))]
    for share in shares(lengths, ranks):
        for piece in share.stretches:
            assert piece.first == max(start for start in starts if start <= piece.begin)
            assert sum(piece.queries) == piece.end - piece.begin
            assert sum(piece.keys) == piece.end - piece.first
            assert all(0 < looking <= seen for looking, seen in zip(piece.queries, piece.keys, strict=True))
            assert piece.query_offsets.tolist() == [sum(piece.queries[:n]) for n in range(len(piece.queries) + 1)]
            assert piece.key_offsets.dtype == torch.int32


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_a_long_document_is_the_same_work_for_every_rank(ranks):
    def work(share: Share) -> int:
        return sum(sum(range(piece.begin + 1, piece.end + 1)) for piece in share.stretches)

    assert len({work(share) for share in shares((64 * ranks,), ranks)}) == 1
    in_order = [Stretch.of((64 * ranks,), rank * 64, (rank + 1) * 64, CPU) for rank in range(ranks)]
    assert sum(range(in_order[-1].begin + 1, in_order[-1].end + 1)) > 1.4 * work(shares((64 * ranks,), ranks)[0])


def test_a_row_that_cannot_be_cut_is_an_error():
    with pytest.raises(ValueError, match="a row of 10 tokens cannot be cut into 4 pieces"):
        shares((4, 6), 2)


@dataclass(frozen=True, kw_only=True, eq=False)
class Known(Share):
    """A share whose other ranks' keys and values are here already."""

    key: Tensor
    value: Tensor

    def of_all(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        return self.key, self.value


def states(tokens: int, dtype: torch.dtype) -> list[Tensor]:
    """Queries of four heads, keys and values of two."""
    generator = torch.Generator().manual_seed(tokens)
    shapes = [(1, heads, tokens, 8) for heads in (4, 2, 2)]
    return [torch.randn(shape, generator=generator, dtype=torch.float32).to(dtype) for shape in shapes]


def outputs(lengths, ranks, window, dtype) -> tuple[Tensor, Tensor]:
    """Attention of the whole row, and put together from what the ranks find for their tokens."""
    query, key, value = states(sum(lengths), dtype)
    whole = Documents.of(torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32))
    expected, _ = packed_attention(LAYER, query, key, value, None, documents=whole, sliding_window=window)
    found = torch.empty_like(expected)
    for share in shares(lengths, ranks):
        known = Known(group=share.group, stretches=share.stretches, key=key, value=value)
        mine = share.own(query.transpose(1, 2)).transpose(1, 2)
        part, _ = packed_attention(
            LAYER, mine, key, value, None, documents=replace(whole, share=known), sliding_window=window
        )
        found[:, share.own(torch.arange(sum(lengths))[None])[0]] = part
    return found, expected


@settings(deadline=None, max_examples=60)
@given(rows(), st.none() | st.integers(1, 40))
def test_what_the_ranks_find_is_what_one_finds(row, window):
    found, expected = outputs(*row, window, torch.float32)

    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


def test_half_precision_is_close():
    found, expected = outputs((100, 60, 96), 2, None, torch.bfloat16)

    torch.testing.assert_close(found, expected, rtol=0, atol=2e-2)


def test_the_comparison_sees_a_window_that_is_one_token_wider():
    found, _ = outputs((40, 24), 2, 9, torch.float32)
    _, wider = outputs((40, 24), 2, 10, torch.float32)

    assert (found - wider).abs().max() > 1e-2


def row_of(tokens: int) -> Row:
    return Row(
        input_ids=torch.arange(1, tokens + 1)[None],
        position_ids=torch.arange(tokens)[None],
        labels=torch.arange(1, tokens + 1)[None],
        weights=torch.ones(1, tokens),
        documents=Documents.of(torch.tensor([0, tokens], dtype=torch.int32)),
    )


@pytest.mark.parametrize(("tokens", "multiple", "length"), [(10, 4, 12), (12, 4, 12), (1, 8, 8), (5, 1, 5)])
def test_a_row_is_lengthened_by_a_document_that_nobody_is_trained_on(tokens, multiple, length):
    row = row_of(tokens).lengthened(multiple)

    assert row.input_ids.shape == row.position_ids.shape == row.labels.shape == row.weights.shape == (1, length)
    assert row.documents.lengths == ((tokens, length - tokens) if length > tokens else (tokens,))
    assert row.documents.cu_seqlens.tolist() == [0, tokens, length][: len(row.documents.lengths) + 1]
    assert (row.labels[0, tokens:] == IGNORE).all()
    assert row.position_ids[0, tokens:].tolist() == list(range(length - tokens))


def test_each_rank_has_what_belongs_to_its_tokens():
    row = row_of(8).shared(ContextGroup(group=Group(2, 1)))

    assert row.input_ids.tolist() == row.labels.tolist() == [[3, 4, 5, 6]]
    assert row.position_ids.tolist() == [[2, 3, 4, 5]]
    assert row.documents.lengths == (8,)
