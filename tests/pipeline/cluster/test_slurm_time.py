"""Time limits in all forms of Slurm."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.errors import UserError
from skills_pipe.pipeline.cluster.slurm_time import format_time, parse_time


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30 * 60),
        (30, 30 * 60),
        ("30:15", 30 * 60 + 15),
        ("04:00:00", 4 * 3600),
        ("4:00:00", 4 * 3600),
        ("2-12", (2 * 24 + 12) * 3600),
        ("2-12:30", (2 * 24 + 12) * 3600 + 30 * 60),
        ("2-12:30:05", (2 * 24 + 12) * 3600 + 30 * 60 + 5),
        ("00:03:45:00", 3 * 3600 + 45 * 60),
        (" 90 ", 90 * 60),
    ],
)
def test_every_form_of_slurm_is_understood(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "1-2-3", "1:2:3:4:5", "1-2:3:4:5", "-5", "4h", "1:", ":30"])
def test_anything_else_is_refused_with_the_forms(text):
    with pytest.raises(UserError, match="days-hours:minutes:seconds"):
        parse_time(text)


@given(st.integers(min_value=0, max_value=400 * 24 * 3600))
def test_the_form_we_write_reads_back(seconds):
    assert parse_time(format_time(seconds)) == seconds


@given(st.integers(0, 50), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_equal_limits_in_different_forms_are_equal(days, hours, minutes, seconds):
    whole = parse_time(f"{days}-{hours}:{minutes}:{seconds}")
    assert whole == parse_time(f"{days * 24 + hours}:{minutes}:{seconds}")
    assert whole == parse_time(f"{(days * 24 + hours) * 60 + minutes}:{seconds}")
    assert whole == parse_time(f"{days:02}:{hours:02}:{minutes:02}:{seconds:02}")
