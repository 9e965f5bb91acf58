# Each target does its own set-up: a fresh clone on a fresh machine needs python3 (3.11 or newer) with venv, and nothing else.
#   make demo   install, then prepare -> train (2 jobs) -> average -> export -> evaluate on this machine, with a report
#   make test   install, then the test suite
#   make test-exhaustive   what make test leaves out: each family of models on each layout of ranks, one by one
#   make test-nemo-run   the tests with nemo-run, which gets an environment of its own (500 MB)
#   make test-peers   asks TRL, torchtune, torchdata, Liger and flash-attn again what the tests have on record, in an environment of their own
#   make check  linters, types and the import contract

PYTHON ?= python3
VENV ?= .venv
NEMO_RUN_VENV ?= .venv-nemo-run
PEERS_VENV ?= .venv-peers
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
TORCH := 2.13.0
# One more than there are processors: tests that wait for Slurm leave theirs idle. Who gets what: see tests/conftest.py.
SIDE_BY_SIDE = -n $$(( $$(nproc) + 1 )) --dist=loadfile --no-loadscope-reorder

.PHONY: demo test test-exhaustive test-nemo-run test-peers check venv system clean

demo: $(VENV)/.installed-train
	$(BIN)/python examples/demo/run.py --output_dir=demo-output

test: $(VENV)/.installed-dev system
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SIDE_BY_SIDE)

test-exhaustive: $(VENV)/.installed-dev system
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SIDE_BY_SIDE) -m exhaustive

test-nemo-run: $(VENV)/.installed-dev $(NEMO_RUN_VENV)/.installed system
	NEMO_RUN_PYTHON="$(abspath $(NEMO_RUN_VENV))/bin/python" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m nemo_run

test-peers: $(VENV)/.installed-dev $(PEERS_VENV)/.installed
	PEERS_PYTHON="$(abspath $(PEERS_VENV))/bin/python" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m peers

check: $(VENV)/.installed-dev
	PATH="$(abspath $(BIN)):$$PATH" scripts/check

venv: $(VENV)/.installed-dev

system:
	scripts/system-packages

clean:
	rm -rf $(VENV) $(NEMO_RUN_VENV) $(PEERS_VENV) demo-output

# torch goes in first and alone: see constraints.txt.
$(VENV)/.installed-train: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==$(TORCH)
	$(PIP) -e ".[train,eval]"
	touch $@

# torchao lies aside: transformers imports it wherever it is installed, which every process of the suite would wait for.
$(VENV)/.installed-dev: $(VENV)/.installed-train
	$(PIP) -e ".[train,tracking,eval,dev]"
	$(PIP) --no-deps --upgrade --target $(VENV)/aside torchao
	touch $@

$(NEMO_RUN_VENV)/.installed: pyproject.toml constraints-nemo-run.txt
	$(PYTHON) -m venv $(NEMO_RUN_VENV)
	$(NEMO_RUN_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-nemo-run.txt -e ".[nemo-run]"
	touch $@

$(PEERS_VENV)/.installed: constraints-peers.txt
	$(PYTHON) -m venv $(PEERS_VENV)
	$(PEERS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check torch==$(TORCH)
	$(PEERS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-peers.txt trl torchtune torchdata torchao liger-kernel triton
	$(PEERS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-peers.txt einops ninja numpy packaging psutil setuptools wheel
# Without its kernels for CUDA, which take hours to build: the tests run those in Triton.
	FLASH_ATTENTION_FORCE_BUILD=TRUE FLASH_ATTENTION_SKIP_CUDA_BUILD=TRUE $(PEERS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -c constraints-peers.txt flash-attn
	touch $@
