from __future__ import annotations

import subprocess
import sys

_LOOKS = """
import sys
import skills_pipe.training.data.doctor.program
import skills_pipe.training.data.preview.program
import skills_pipe.training.prepare_data

code = "transformers.modeling_utils"
assert code not in sys.modules, "the code of models is imported"
import skills_pipe.training.models.load
assert code in sys.modules, "and this is not where it lies"
"""


def test_who_looks_at_data_does_not_wait_for_the_code_of_models():
    subprocess.run([sys.executable, "-c", _LOOKS], check=True)
