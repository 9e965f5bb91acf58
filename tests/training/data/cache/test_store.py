"""One process makes an entry, whoever else asks, and whatever kills it."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from skills_pipe.errors import DataError
from skills_pipe.training.data.cache import lock as locks
from skills_pipe.training.data.cache.lock import Lock
from skills_pipe.training.data.cache.store import _POLL_SECONDS, Store
from tests.pipeline.programs import until

KEY = "ab" * 32


@pytest.fixture
def place(tmp_path):
    (tmp_path / "hold").touch()
    return tmp_path


def ask(place, *, hold=False, fate="well"):
    argv = [sys.executable, "-m", "tests.training.data.cache.maker", place / "store", KEY, place / "log"]
    return subprocess.Popen([*argv, place / "hold" if hold else "", fate], stdout=subprocess.PIPE, text=True)


def answer(process):
    out, _ = process.communicate(timeout=60)
    return out.strip()


def times_made(place):
    return len((place / "log").read_text().splitlines()) if (place / "log").exists() else 0


def never(folder):
    raise AssertionError("made although it is there")


def test_of_many_that_ask_one_makes_it_and_all_get_the_same(place):
    processes = [ask(place, hold=True) for _ in range(4)]
    until(lambda: times_made(place) == 1, "the entry is being made")
    (place / "hold").unlink()
    answers = {answer(process) for process in processes}
    assert len(answers) == 1
    assert len(answers.pop()) == 64
    assert times_made(place) == 1
    Store(place / "store").get(KEY, never)
    entry = Store(place / "store").path(KEY)
    assert [path.name for path in entry.parent.iterdir()] == [KEY]


def test_without_the_lock_two_would_make_it(place):
    # The control of the test above: an entry that is being made is no entry yet.
    first = ask(place, hold=True)
    until(lambda: times_made(place) == 1, "the entry is being made")
    Store(place / "store").path(KEY).with_name(f"{KEY}.lock").unlink()
    second = ask(place, hold=True)
    until(lambda: times_made(place) == 2, "another one makes it")
    (place / "hold").unlink()
    assert answer(first) == answer(second)


def test_a_maker_that_is_killed_is_followed_by_the_next(place):
    killed = ask(place, hold=True)
    until(lambda: times_made(place) == 1, "the entry is being made")
    waiting = ask(place)
    killed.kill()
    killed.communicate()
    assert len(answer(waiting)) == 64
    assert times_made(place) == 2
    entry = Store(place / "store").path(KEY)
    assert [path.name for path in entry.parent.iterdir()] == [KEY], "leftovers of the killed process are cleared away"


def test_data_that_are_refused_are_refused_to_all_that_waited_and_read_again_by_the_next(place):
    maker = ask(place, hold=True, fate="refused")
    until(lambda: times_made(place) == 1, "the entry is being made")
    told = "two rows are bad (rows.jsonl:2): mend them"
    store = Store(place / "store")
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(store.get, KEY, never)
        until(lambda: waiting.running(), "somebody waits")
        time.sleep(2 * _POLL_SECONDS)  # It has looked at the lock: only then was it waiting for this maker.
        (place / "hold").unlink()
        with pytest.raises(DataError) as caught:
            waiting.result()
    assert str(caught.value) == answer(maker) == told
    assert times_made(place) == 1
    assert len(answer(ask(place))) == 64


def test_a_lock_of_another_machine_counts_while_it_is_touched(tmp_path):
    path = tmp_path / "entry.lock"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": "", "job": ""}))
    with Lock(path).try_hold() as mine:
        assert not mine
    long_ago = time.time() - locks._SILENT_SECONDS - 1
    os.utime(path, (long_ago, long_ago))
    with Lock(path).try_hold() as mine:
        assert mine
    assert not path.exists()


def test_a_lock_is_touched_while_it_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_BEAT_SECONDS", 0.01)
    path = tmp_path / "entry.lock"
    with Lock(path).try_hold():
        os.utime(path, (0, 0))
        until(lambda: path.stat().st_mtime > 0, "the lock is touched")


def test_an_entry_is_made_again_on_demand_once_in_a_start(place):
    (place / "hold").unlink()
    assert len(answer(ask(place))) == 64
    store = Store(place / "store")
    entry = store.path(KEY)
    os.utime(entry, (0, 0))
    made = []

    def make(folder):
        made.append(folder)
        never(folder)

    with pytest.raises(AssertionError):
        store.get(KEY, make, again=True)
    os.utime(entry)
    store.get(KEY, make, again=True)
    assert len(made) == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot be kept in .*file.*data\.cache_dir"):
        Store(tmp_path / "file").get(KEY, never)
