"""One process makes an entry, whoever else asks, and whatever kills it."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from skills_pipe.errors import DataError
from skills_pipe.training.data import build
from skills_pipe.training.data.build import DataSettings, encode_in_order
from skills_pipe.training.data.cache import lock as locks
from skills_pipe.training.data.cache.lock import Lock
from skills_pipe.training.data.cache.store import _POLL_SECONDS, Store
from skills_pipe.training.data.sources import DataSource
from skills_pipe.training.data.template import resolve_template
from tests.pipeline.programs import until
from tests.training.tiny import chat_rows, tiny_tokenizer, write_jsonl

KEY = "ab" * 32


@pytest.fixture
def place(tmp_path):
    (tmp_path / "hold").touch()
    return tmp_path


def ask(place, *, hold=False, fate="well", machine=()):
    argv = [sys.executable, "-m", "tests.training.data.cache.maker", place / "store", KEY, place / "log"]
    return subprocess.Popen([*machine, *argv, place / "hold" if hold else "", fate], stdout=subprocess.PIPE, text=True)


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


def test_whoever_makes_it_is_killed_again_and_again_and_the_last_one_makes_it_whole(place):
    processes = [ask(place, hold=True) for _ in range(4)]
    lock = Lock(Store(place / "store").path(KEY).with_name(f"{KEY}.lock"))
    for kill in range(3):
        until(lambda count=kill + 1: times_made(place) == count, "the next one makes it")
        maker = lock.owner()
        (victim,) = (process for process in processes if maker is not None and process.pid == maker.pid)
        victim.kill()
        victim.communicate()
        processes.remove(victim)
    until(lambda: times_made(place) == 4, "the last one makes it")
    (place / "hold").unlink()
    (last,) = processes
    assert answer(last) == Store(place / "store").get(KEY, never).fingerprint
    entry = Store(place / "store").path(KEY)
    assert [path.name for path in entry.parent.iterdir()] == [KEY]


@pytest.fixture
def elsewhere(monkeypatch):
    """What a command begins with that runs on another machine: one of another name that sees the same files."""
    monkeypatch.setenv("BEAT_SECONDS", "0.1")
    monkeypatch.setenv("SILENT_SECONDS", "3")
    begin = ("unshare", "--map-root-user", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', "elsewhere")
    told = subprocess.run([*begin, "hostname"], capture_output=True, text=True, check=False)
    if told.stdout != "elsewhere\n":
        pytest.skip(f"no machine with a name of its own: {told.stderr.strip()}")
    return begin


def test_a_maker_on_another_machine_is_waited_for_while_it_touches_its_lock(place, elsewhere):
    maker = ask(place, hold=True, machine=elsewhere)
    until(lambda: times_made(place) == 1, "the entry is being made there")
    path = Store(place / "store").path(KEY).with_name(f"{KEY}.lock")
    assert Lock(path).owner().host == "elsewhere"
    waiting = ask(place)
    # Longer than it may be silent: it has not been taken for dead.
    taken = path.stat().st_mtime
    until(lambda: path.stat().st_mtime > taken + 4, "it has touched the lock for a while")
    assert times_made(place) == 1 and waiting.poll() is None
    (place / "hold").unlink()
    assert answer(waiting) == answer(maker)
    assert times_made(place) == 1


def test_a_maker_that_is_killed_on_another_machine_is_followed_when_it_has_been_silent(place, elsewhere):
    maker = ask(place, hold=True, machine=elsewhere)
    until(lambda: times_made(place) == 1, "the entry is being made there")
    waiting = ask(place)
    maker.kill()
    maker.communicate()
    assert len(answer(waiting)) == 64
    assert times_made(place) == 2
    entry = Store(place / "store").path(KEY)
    assert [path.name for path in entry.parent.iterdir()] == [KEY]


def built(world, *, rows, cache):
    """The data set of a job, and whether this one made it; all ask for it in the same moment."""
    made = []

    def make(recipe, todo, *, workers):
        made.append(world.rank)
        return encode_in_order(recipe, todo, workers=workers)

    tokenizer = tiny_tokenizer()
    template = resolve_template("default", tokenizer, None, "chat")
    options = build.BuildOptions(cache=Path(cache) if cache is not None else None)
    world.barrier()
    build.encode_in_order = make
    try:
        data = build.build_dataset(
            [DataSource(path=Path(rows))], tokenizer, template, DataSettings(max_length=200), options
        )
    finally:
        build.encode_in_order = encode_in_order
    return data.fingerprint, bool(made)


@pytest.mark.parametrize("jobs", [2, 4])
def test_jobs_that_ask_for_the_same_rows_at_once_tokenise_them_once(jobs, tmp_path, request):
    ranks = request.getfixturevalue("two_ranks" if jobs == 2 else "four_ranks")
    rows = write_jsonl(tmp_path / "rows.jsonl", chat_rows(300))
    found = ranks(built, rows=str(rows), cache=str(tmp_path / "cache"))
    assert len({fingerprint for fingerprint, _ in found}) == 1
    assert sum(made for _, made in found) == 1
    apart = ranks(built, rows=str(rows), cache=None) if jobs == 2 else []
    assert all(made for _, made in apart)  # the control: without a cache, each does


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
        assert json.loads(path.read_text())["pid"] == os.getpid()


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
