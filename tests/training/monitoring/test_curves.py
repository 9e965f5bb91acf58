import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.artifacts.metrics import Curve
from skills_pipe.errors import DataError
from skills_pipe.training.monitoring.curves import Curves, draw_png, draw_text, main


@pytest.fixture
def metrics_file(tmp_path):
    lines = [{"step": step, "train/loss": 4 / step, "train/lr": 1e-3 / step} for step in range(1, 41)]
    lines[6]["train/loss"] = None
    lines += [{"step": step, "validation/val_loss": 3 / step} for step in (20, 40)]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 41, "train/lo')
    return path


def curve(values):
    return Curve(steps=tuple(range(len(values))), values=tuple(values))


def test_curves_are_read_by_name_without_gaps_and_cut_lines(metrics_file):
    curves = Curves.read(metrics_file)
    assert len(curves.loss.steps) == 39
    assert 7 not in curves.loss.steps
    assert curves.validation == Curve(steps=(20, 40), values=(0.15, 0.075))
    assert curves.learning_rate.values[0] == 1e-3


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=200))
def test_smoothing_stays_within_the_values_and_keeps_both_ends(values):
    smooth = curve(values).smoothed().values
    assert len(smooth) == len(values)
    assert smooth[0] == pytest.approx(values[0], abs=1e-6)
    assert smooth[-1] == pytest.approx(values[-1], abs=1e-6)
    assert min(values) - 1e-6 <= min(smooth) <= max(smooth) <= max(values) + 1e-6


def test_smoothing_does_not_shift_a_straight_line_and_evens_out_noise():
    line = [0.5 * step for step in range(100)]
    assert curve(line).smoothed().values == pytest.approx(line)
    noisy = curve([step % 2 for step in range(200)]).smoothed().values
    assert all(abs(value - 0.5) < 0.15 for value in noisy[10:-10])


def test_the_png_is_a_picture_of_the_size_it_says(metrics_file, tmp_path):
    draw_png(Curves.read(metrics_file), tmp_path / "loss.png")
    data = (tmp_path / "loss.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (1080, 600)


def test_the_text_shows_line_validation_and_range(metrics_file):
    text = draw_text(Curves.read(metrics_file), width=60)
    assert text.splitlines()[0] == "training loss, smoothed, x validation loss, by step"
    assert "".join(text.splitlines()[1:]).count("x") == 2
    assert all(len(line) <= 60 for line in text.splitlines())


def test_the_program_prints_and_draws(metrics_file, tmp_path, capsys):
    assert main([str(metrics_file), "--png", str(tmp_path / "out" / "loss.png")]) == 0
    assert "training loss" in capsys.readouterr().out
    assert (tmp_path / "out" / "loss.png").is_file()


@pytest.mark.parametrize("content", [None, "", '{"step": 1, "validation/val_loss": 2.0}\n'])
def test_a_file_without_training_steps_is_a_clear_line(tmp_path, content, capsys):
    path = tmp_path / "metrics.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError):
        Curves.read(path)
    assert main([str(path)]) == 2
    assert str(path) in capsys.readouterr().err
