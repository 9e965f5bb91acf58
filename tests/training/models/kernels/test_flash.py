"""FlashAttention's public function is called as it wants to be, and gives what ours does."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]


@pytest.mark.peers
def test_flash_attention_is_ours_and_what_it_leaves_out_is_seen():
    python = Path(os.environ.get("PEERS_PYTHON") or ROOT / ".venv-peers" / "bin" / "python")
    if not python.exists():
        pytest.skip(f"there is no {python} with flash-attn: run `make test-peers`, or set PEERS_PYTHON")
    interpreted = {"OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "1", "FLASH_ATTENTION_TRITON_AMD_ENABLE": "TRUE"}
    argv = [python, "-W", "ignore", "-m", "tests.training.models.kernels.flash_beside_ours"]
    environment = os.environ | interpreted | {"PYTHONPATH": str(ROOT)}
    said = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr

    found = json.loads(said.stdout.splitlines()[-1])
    assert found["name"].startswith("flash-attn 2.")
    assert found["arguments"] == found["documented"]
    assert len(found["same"]) == 4 and max(found["same"].values()) <= 2e-6, found
    verdicts = found["verdicts"]
    assert verdicts["plain"] is None and verdicts["another scale"] is None and found["in half precision"] is None
    # The controls: these kernels know neither windows nor caps, and do not say so.
    assert "is off by" in verdicts["windows"] and "is off by" in verdicts["caps"], found
    # Two layers: what is kept of them is not computed again.
    assert found["calls"] == {"selective": 2, "full": 4}
