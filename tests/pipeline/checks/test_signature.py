"""What the source of a class tells is what Python says of it; where it does not tell, nothing is said."""

import inspect
import subprocess
import sys
import zipfile

import pytest
import torch
import transformers
from torch.optim import lr_scheduler

from skills_pipe.pipeline.checks.signature import Nowhere, Signature, is_installed, signature_of

OPTIMIZERS = [f"torch.optim.{name}" for name, one in vars(torch.optim).items() if inspect.isclass(one)]
SCHEDULES = [f"torch.optim.lr_scheduler.{name}" for name in lr_scheduler.__all__]
FUNCTIONS = [f"transformers.{name}" for name in dir(transformers) if name.startswith("get_") and "schedule" in name]


@pytest.mark.parametrize("path", [*OPTIMIZERS, *SCHEDULES, *FUNCTIONS, "transformers.optimization.Adafactor"])
def test_it_is_what_python_says(path):
    found = signature_of(path)
    if path.endswith("get_reduce_on_plateau_schedule"):  # the library gives it two bodies
        assert found is None
        return
    module, _, name = path.rpartition(".")
    parameters = inspect.signature(getattr(sys.modules[module], name)).parameters
    named = {key: one for key, one in parameters.items() if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)}
    assert isinstance(found, Signature)
    assert list(found.required.items()) == [(key, one.default is one.empty) for key, one in named.items()]
    assert found.takes_any == any(one.kind is one.VAR_KEYWORD for one in parameters.values())


@pytest.fixture
def own(tmp_path):
    """A package of the user's, in the folder that the trainer starts in."""
    (tmp_path / "own" / "inner").mkdir(parents=True)
    (tmp_path / "own" / "__init__.py").write_text("from .inner import Base as Renamed\nfrom . import odd\n")
    (tmp_path / "own" / "inner" / "__init__.py").write_text(
        "class Base:\n    def __init__(self, params, *, rate, decay=0.0, **rest): ...\n"
        "class Child(Base):\n    pass\n"
        "class Grandchild(Child):\n    def step(self): ...\n"
        "class Plain:\n    pass\n"
    )
    (tmp_path / "own" / "odd.py").write_text(
        "import functools\nfrom .inner import Base\nfrom .gone import Missing\n"
        "@functools.cache\ndef wrapped(optimizer, a): ...\n"
        "class Meta(Base, metaclass=type):\n    pass\n"
        "class New:\n    def __new__(cls, params): ...\n"
        "made = functools.partial(Base, rate=1)\n"
        "try:\n    from .inner import Child as either\nexcept ImportError:\n    from .inner import Base as either\n"
    )
    (tmp_path / "own" / "lazy.py").write_text("def __getattr__(name): ...\n")
    (tmp_path / "own" / "star.py").write_text("from .inner import *\n")
    (tmp_path / "own" / "broken.py").write_text("class Broken(:\n")
    (tmp_path / "own" / "loop.py").write_text("for Loop in (object,):\n    pass\n")
    (tmp_path / "own" / "walrus.py").write_text("if (Made := object):\n    pass\n")
    (tmp_path / "own" / "body.py").write_text(
        "from .inner import Base\n"
        "class Chosen(Base):\n    if True:\n        def __init__(self, params, beta): ...\n"
        "def make(self, params, beta): ...\n"
        "class Given(Base):\n    __init__ = make\n"
    )
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "opt.py").write_text("class Mine:\n    def __init__(self, params): ...\n")
    (tmp_path / "spread").mkdir()
    (tmp_path / "spread" / "__init__.py").write_text(
        "__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n"
    )
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as packed:
        packed.writestr("zipped.py", "class A: pass\n")
    return str(tmp_path)


@pytest.mark.parametrize("path", ["own.Renamed", "own.inner.Base", "own.inner.Grandchild"])
def test_imports_and_bases_are_followed(own, path):
    expected = Signature(required={"params": True, "rate": True, "decay": False}, takes_any=True)
    assert signature_of(path, folder=own) == expected
    assert signature_of(path) is None, "elsewhere there is no such package, which others tell"


@pytest.mark.parametrize(
    "name",
    [
        *("odd.wrapped", "odd.Meta", "odd.New", "odd.made", "odd.either", "odd.Missing", "odd", "inner.Plain"),
        *("lazy.Any", "star.Base", "star.Other", "broken.Broken", "broken.Other"),
        *("loop.Loop", "walrus.Made", "body.Chosen", "body.Given"),
    ],
)
def test_where_it_does_not_tell_nothing_is_said(own, name):
    assert signature_of(f"own.{name}", folder=own) is None


def test_packages_that_are_no_plain_folders(own, monkeypatch):
    assert signature_of("spread.opt.Mine", folder=own) is None
    monkeypatch.syspath_prepend(f"{own}/packed.zip")
    assert is_installed("zipped") and signature_of("zipped.B") is None
    # A folder without an __init__.py is found as Python finds it.
    assert is_installed("plain", folder=own) and not is_installed("plain")
    assert signature_of("plain.opt.Mine", folder=own) is None


@pytest.mark.parametrize(
    ("path", "module", "name"),
    [
        ("own.inner.Bass", "own.inner", "Base"),
        ("own.Base", "own", "Renamed"),
        ("torch.optim.AdamWW", "torch.optim", "AdamW"),
        ("own.innner.Base", "own.innner", None),
        ("torch.optin.AdamW", "torch.optin", None),
        ("AdamW", "", None),
        ("torch.optim.**.X", "torch.optim.**", None),
    ],
)
def test_what_is_not_there_is_told_with_what_is(own, path, module, name):
    found = signature_of(path, folder=own)
    assert isinstance(found, Nowhere) and found.module == module
    assert found.names is None if name is None else name in found.names


def test_a_folder_of_the_same_name_hides_no_package(tmp_path):
    (tmp_path / "torch").mkdir()
    assert isinstance(signature_of("torch.optim.SGD", folder=str(tmp_path)), Signature)
    assert is_installed("torch", folder=str(tmp_path)) and not is_installed("nowhere", folder=str(tmp_path))


def test_nothing_is_imported():
    look = "import sys; from skills_pipe.pipeline.checks.signature import signature_of as look"
    code = f"{look}; print(look('torch.optim.AdamW') is not None, 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True False\n"
