"""From a laptop: the webhook is told by the cluster, its address does not stay here; runs are shown and resumed."""

from __future__ import annotations

import pytest

from tests.pipeline.notify.listener import listening
from tests.pipeline.programs import until
from tests.ssh.test_behind_ssh import World, files_with, world  # noqa: F401

pytestmark = pytest.mark.slurm


def test_the_cluster_tells_and_the_address_stays_nowhere(world: World):  # noqa: F811
    with listening() as hook:
        config = world.node.base / "home" / "cluster_configs" / "far.yaml"
        config.write_text(config.read_text() + 'notify: {webhook: "{HOOK}"}\n')
        words = (f"--log_dir={world.folder}/logs", "--cluster=far", "--expname=told", "--command=sleep 1")
        world.ns("run_cmd", *words, HOOK=hook.url)
        assert files_with(world.node.base / "home", b"hook-with-a-secret") == [], "it was sent, and not kept"
        world.until_ended("told")
        assert hook.texts == ["told/run-1 ended well. ns status told --cluster=far"]
        assert files_with(world.folder, b"hook-with-a-secret") == []
        assert "told-notify" in world.ns("show", "told", "--scripts", "--cluster=far").stdout


def test_a_run_is_shown_watched_and_resumed_from_a_laptop(world: World):  # noqa: F811
    words = (f"--log_dir={world.folder}/logs", "--cluster=far", "--expname=far-away")
    world.ns("run_cmd", *words, f"--command=cat {world.folder}/input")
    watched = world.ns("status", "far-away", "--watch", "--cluster=far", check=False)
    assert watched.returncode == 1 and "`ns resume far-away --cluster=far`" in watched.stdout
    (world.folder / "input").write_text("now it is there\n")
    world.ns("resume", "far-away", "--cluster=far")
    assert world.ns("status", "far-away", "--watch", "--cluster=far").returncode == 0
    assert "now it is there" in world.ns("logs", "far-away", "--cluster=far").stdout
    shown = world.ns("show", "far-away", "--cluster=far").stdout
    assert "far-away/run-2" in shown and "ns resume --cluster=far far-away" in shown


def test_following_and_cancelling_one_run(world: World):  # noqa: F811
    words = (f"--log_dir={world.folder}/logs", "--cluster=far", "--expname=long")
    world.ns("run_cmd", *words, f"--command=touch {world.folder}/runs; sleep 600")
    until((world.folder / "runs").exists, "it runs", at_most=300)
    assert world.ns("cancel", "long", "--wait", "--cluster=far").stdout == "long/run-1: stopping long\n"
    assert "cancelled by `ns cancel`" in world.ns("status", "long", "--cluster=far").stdout
