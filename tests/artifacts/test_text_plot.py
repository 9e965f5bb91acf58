from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.artifacts.text_plot import line_plot

VALUES = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))


def test_a_falling_line_goes_from_the_upper_left_to_the_lower_right():
    assert line_plot([(0, 1), (10, 0)], width=19, height=4).splitlines() == [
        "         1┤⠑⢄",
        "          ┤  ⠑⢄",
        "    0.3667┤    ⠑⢄",
        "         0┤      ⠑⢄",
        "          └────────",
        "           0     10",
    ]


def test_points_are_marked_over_the_line():
    assert line_plot([(0, 1), (10, 0)], points=[(5, 1), (10, 0)], width=19, height=4).splitlines()[:4] == [
        "         1┤⠑⢄  x",
        "          ┤  ⠑⢄",
        "    0.3667┤    ⠑⢄",
        "         0┤      ⠑x",
    ]


def test_points_widen_the_frame():
    picture = line_plot([(0, 1), (10, 0)], points=[(20, 5)], width=30, height=5).splitlines()
    assert picture[0].startswith("         5┤")
    assert picture[-1].endswith("20")


def test_one_value_has_one_label():
    picture = line_plot([(3, 2)], width=19, height=4).splitlines()
    assert picture[0] == "         2┤⠁"
    assert picture[1:4] == ["          ┤"] * 3
    assert picture[-1] == "           3"


@given(
    ys=st.lists(VALUES, min_size=1, max_size=50),
    points=st.lists(st.tuples(VALUES, VALUES), max_size=5),
    width=st.integers(1, 120),
    height=st.integers(1, 30),
)
def test_any_values_fit_into_the_frame(ys, points, width, height):
    lines = line_plot(list(enumerate(ys)), points=points, width=width, height=height).splitlines()
    assert len(lines) == height + 2
    assert max(len(line) for line in lines[:-1]) <= max(width, 19)
