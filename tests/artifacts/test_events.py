"""Events of several writers are read as one history; a torn line costs that line only."""

from skills_pipe.artifacts.events import EventLog, read_events


def test_writers_are_merged_in_the_order_of_time(tmp_path):
    first, second = EventLog(tmp_path, writer="a"), EventLog(tmp_path, writer="b")
    written = [log.append("job", kind, step=step) for step, (log, kind) in enumerate([(second, "x"), (first, "y")] * 3)]
    assert read_events(tmp_path) == written
    assert [event.details["step"] for event in read_events(tmp_path)] == [0, 1, 2, 3, 4, 5]


def test_a_torn_last_line_costs_that_line_only(tmp_path):
    log = EventLog(tmp_path, writer="a")
    kept = log.append("job", "started")
    log.append("job", "ended", state="succeeded")
    path = tmp_path / "a.jsonl"
    whole = path.read_text()
    for cut in range(len(whole.splitlines()[0]) + 1, len(whole) - 1):
        path.write_text(whole[:cut])
        assert read_events(tmp_path) == [kept]
    path.write_text(whole)
    assert len(read_events(tmp_path)) == 2


def test_a_line_of_another_program_is_left_out(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"unknown": 1}\n[]\nnull\n')
    assert read_events(tmp_path) == []


def test_no_folder_is_no_history(tmp_path):
    assert read_events(tmp_path / "nothing") == []
