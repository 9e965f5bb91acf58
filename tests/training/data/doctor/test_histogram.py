"""Histograms of lengths."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.training.data.doctor.histogram import draw_png, draw_text, histogram


@given(st.lists(st.one_of(st.integers(1, 200), st.integers(1, 100_000)), min_size=1, max_size=300))
def test_each_document_is_in_one_bin(lengths):
    bins = histogram(np.array(lengths))
    for part in bins:
        assert part.count == sum(part.low <= length <= part.high for length in lengths)
    assert sum(part.count for part in bins) == len(lengths)
    assert bins[0].low == 1
    assert all(later.low == earlier.high + 1 for earlier, later in pairwise(bins))
    assert len(bins) <= 16


def test_a_few_long_documents_do_not_press_all_others_into_one_bin():
    bins = histogram(np.array([*range(1, 1001), 100_000]))
    assert len([part for part in bins if part.count > 1]) > 5
    assert (bins[-1].high, bins[-1].count) == (100_000, 1)


def test_the_text_shows_bars_and_the_limit():
    bins = histogram(np.array([5] * 10 + [15] * 5 + [25] * 20))
    drawn = draw_text(bins, limit=12, width=60).splitlines()
    assert len(drawn) == len(bins)
    assert [line.split()[0] for line in drawn if "limit 12" in line] == ["11-12"]
    longest = max(drawn, key=lambda line: line.count("█"))
    assert longest.endswith(" 20")
    assert max(map(len, drawn)) <= 60


def test_nothing_is_drawn_of_nothing():
    assert draw_text(histogram(np.array([], np.int64))) == ""


def test_a_picture_is_written(tmp_path):
    draw_png(np.array([5, 6, 100]), tmp_path / "a.png", limit=50)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
