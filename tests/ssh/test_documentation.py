"""What docs/ssh.md says of the configuration."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from skills_pipe.pipeline.cluster.file import TUNNEL_KEYS, read_mapping
from skills_pipe.pipeline.transport.ssh import _TROUBLES

PAGE = (Path(__file__).parents[2] / "docs" / "ssh.md").read_text()


def test_the_configuration_on_the_page_is_valid():
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    cluster = read_mapping(yaml.safe_load(text), name="far", where="docs/ssh.md")
    assert cluster.ssh_tunnel is not None and cluster.job_dir == cluster.ssh_tunnel.job_dir
    assert cluster.ssh_tunnel.user is None, "whom ~/.ssh/config names logs in"


def test_every_key_and_every_trouble_is_described():
    rows = "\n".join(line for line in PAGE.splitlines() if line.startswith("|"))
    assert [key for key in TUNNEL_KEYS if f"`{key}`" not in rows] == []
    meanings = {meaning.partition(":")[0] for _, meaning, _ in _TROUBLES}
    assert [meaning for meaning in meanings if f"`{meaning}`" not in rows] == []
