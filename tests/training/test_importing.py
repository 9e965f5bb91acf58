"""Quick imports."""

import gc
import json
import subprocess
import sys

import pytest

from skills_pipe.training.importing import importing


def test_nothing_is_collected_while_modules_are_imported_and_everything_after():
    assert gc.isenabled()
    with importing():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_module_that_cannot_be_imported_leaves_the_collector_on():
    with pytest.raises(ImportError), importing():
        raise ImportError("no such module")
    assert gc.isenabled()


def test_who_has_switched_the_collector_off_finds_it_off():
    gc.disable()
    try:
        with importing():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_modules_are_set_aside_once_and_garbage_of_later_is_still_collected():
    code = """
import gc, weakref
from skills_pipe.training.importing import importing
with importing():
    import skills_pipe.training.config
frozen = gc.get_freeze_count()
class Node: pass
node = Node(); node.itself = node; seen = weakref.ref(node); del node
with importing():
    pass
gc.collect()
print(frozen > 0, gc.get_freeze_count() == frozen, seen() is None)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "True True True\n"


_SCANS = """
import contextlib, json, sys
from collections import Counter
from skills_pipe.training.importing import importing

opened = Counter()
sys.addaudithook(lambda event, found: opened.update([str(found[0])]) if event == "open" else None)
with importing() if sys.argv[1] == "once" else contextlib.nullcontext():
    import transformers
    import transformers.models
finders = len(sys.meta_path)
with importing():
    pass
models = str(transformers.__path__[0]) + "/models/"
twice = sum(count > 1 for name, count in opened.items() if name.startswith(models) and name.endswith(".py"))
lazy = [sys.modules[name] for name in ("transformers", "transformers.models")]
names = {module.__name__: [dir(module), sorted(module._class_to_module.items())] for module in lazy}
print(json.dumps({"twice": twice, "names": names, "finders left": len(sys.meta_path) - finders}))
"""


def test_the_sources_of_transformers_are_read_once_and_the_same_names_are_found():
    def scan(how: str) -> dict[str, object]:
        ended = subprocess.run([sys.executable, "-c", _SCANS, how], capture_output=True, text=True, check=True)
        return json.loads(ended.stdout)

    once, usual = scan("once"), scan("as usual")
    assert once.pop("twice") < 10
    assert usual.pop("twice") > 1000
    assert once == usual


def test_help_and_mistypings_do_not_wait_for_torch():
    code = """
import sys
from skills_pipe.training.sft import main
try:
    main(sys.argv[1:])
finally:
    print("torch" in sys.modules)
"""
    for argument, status in (("--help", 0), ("--strict=perhaps", 2)):
        ended = subprocess.run([sys.executable, "-c", code, argument], capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stdout.splitlines()[-1]) == (status, "False")
