"""Saves a checkpoint again and again, killed a little later each time.

``python -m tests.training.checkpoint.killed_save FOLDER [replace] [background] [bytes]``: the kill comes one change
of the file system later each time, or, with ``bytes``, when a file reaches a size. ``background``: training goes on
while the save is written. Prints the number of kills before a save was no longer reached. Exits with an error as soon
as an older checkpoint suffered.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from skills_pipe.artifacts import manifest as manifests
from skills_pipe.artifacts.names import MANIFEST
from skills_pipe.training.checkpoint.manager import CheckpointManager
from skills_pipe.training.checkpoint.resume import latest_whole
from skills_pipe.training.checkpoint.state import Trainee
from tests.training.checkpoint.runs import (
    RUN,
    equal_trainees,
    info_at,
    new_manager,
    new_trainee,
    position_at,
    save_steps,
    train,
)

OPERATIONS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "os.truncate"}


def changes_something(event: str, arguments: tuple[object, ...]) -> bool:
    """Whether an operation may leave files otherwise; a kill before one that reads would show the same as the next."""
    if event == "open":
        return isinstance(arguments[2], int) and arguments[2] & os.O_ACCMODE != os.O_RDONLY
    return event in OPERATIONS


def kill_at(number: int, folder: Path) -> None:
    """Kill this process just before its ``number``-th change of a path below ``folder``, or of an open folder."""
    left = number

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if not changes_something(event, arguments) or not str(arguments[0]).startswith(str(folder)):
            return
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def kill_at_size(size: int) -> None:
    """Kill this process as soon as it writes beyond byte ``size`` of any file."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def sizes(count: int) -> list[int]:
    """Sizes from the first byte to beyond the largest file, most of them small: most files are."""
    generator = random.Random(5)
    return [*sorted(int(10 ** generator.uniform(0, 5.6)) for _ in range(count)), 2**40]


def save(folder: Path, trainee: Trainee, kill: Callable[[], None], *, background: bool) -> None:
    """Save step 2, with the kill armed before it."""
    manager = CheckpointManager(folder, run=RUN, in_background=background)
    manager.start()
    kill()
    manager.save(trainee, info_at(2), position_at(2))
    while background and not manager.poll(trainee):
        train(trainee, 1)
    os._exit(0)


def main() -> None:
    folder = Path(sys.argv[1])
    replace, background, by_size = (word in sys.argv[2:] for word in ("replace", "background", "bytes"))
    torch.set_num_threads(1)
    old = save_steps(folder, 1, 2) if replace else save_steps(folder, 1)
    before = {path.name: manifests.read(path).digest for path in sorted(folder.glob("step_*"))}
    new = new_trainee()
    train(new, 5)
    kills = (
        [partial(kill_at_size, size) for size in sizes(40)]
        if by_size
        else (partial(kill_at, number, folder) for number in range(10_000))
    )
    for number, kill in enumerate(kills):
        manifests.seal(folder, kind="training")
        child = os.fork()
        if child == 0:
            save(folder, new, kill, background=background)
        _, status = os.waitpid(child, 0)
        if status == 0:
            print(number)
            return
        if not os.WIFSIGNALED(status):
            sys.exit(f"the save ended with status {status} at operation {number}")
        check(folder, number, before, old, new)


def check(folder: Path, number: int, before: dict[str, str], old: Trainee, new: Trainee) -> None:
    """The next process finds every older step as it was, or the new one whole, and nothing else after it started."""
    resumed = new_trainee(seed=9)
    manager = new_manager(folder)
    manager.resume(resumed)
    found = latest_whole(folder)
    manager.close()
    sealed = manifests.read(folder)
    steps = {path.name for path in folder.glob("step_*")}
    if sealed is not None and (
        {Path(name).parts[0] for name in sealed.files} != steps or manifests.damage(folder, sealed)
    ):
        sys.exit(f"operation {number} left a seal of other steps")
    names = sorted(path.name for path in folder.iterdir() if path.name != MANIFEST)
    if names not in (["step_1"], ["step_1", "step_2"]):
        sys.exit(f"operation {number} left {names}")
    if not equal_trainees(resumed, old) and not equal_trainees(resumed, new):
        sys.exit(f"operation {number}: {found.path.name} holds neither the old nor the new state")
    for name, digest in before.items():
        manifest = manifests.read(folder / name)
        replaced = name == "step_2" and equal_trainees(resumed, new)
        if manifest is None or (manifest.digest != digest and not replaced):
            sys.exit(f"operation {number} changed {name}")
    if "step_2" not in before and (folder / "step_2").exists():
        shutil.rmtree(folder / "step_2")


if __name__ == "__main__":
    main()
