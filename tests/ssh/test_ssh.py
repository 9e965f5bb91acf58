"""Programs on a login node: a real sshd, the real ssh."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from skills_pipe.errors import ClusterConfigError, UserError
from skills_pipe.pipeline.cluster.config import ClusterConfig, ExecutorKind, SshTunnel
from skills_pipe.pipeline.site.site import Want, site_of
from skills_pipe.pipeline.transport.here import Here
from skills_pipe.pipeline.transport.reach import transport_of
from skills_pipe.pipeline.transport.ssh import Ssh
from tests.pipeline.programs import until
from tests.ssh.login_node import LoginNode


@pytest.fixture
def node(login_node: LoginNode, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoginNode]:
    """The login node; this process is on the laptop, and no connection is shared yet."""
    for name, value in login_node.laptop.items():
        monkeypatch.setenv(name, value)
    yield login_node
    login_node.hang_up()


def ssh(host: str = "login", **keys: str) -> Ssh:
    return Ssh(SshTunnel(host=host, job_dir="/jobs", **keys))


def trouble(there: Ssh) -> str:
    with pytest.raises(ClusterConfigError) as caught:
        there.run(["true"])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_program_gets_its_words_and_input_and_tells_how_it_ended(node):
    words = ["it's", "a b", "$HOME", "*", "ä\\", '"', "!x", ""]
    answer = ssh().run(["sh", "-c", 'cat; printf "<%s>" "$@"; echo err >&2; exit 3', "sh", *words], stdin="in ä\n")
    assert answer.code == 3
    assert answer.out == "in ä\n" + "".join(f"<{word}>" for word in words)
    assert answer.err.endswith("err\n")
    assert ssh().run(["no-such-program"]).code == 127


def test_input_may_be_bytes(node):
    data = bytes(range(256)) * 1000
    assert ssh().run(["wc", "-c"], stdin=data).out.strip() == "256000"


def test_it_runs_there_and_not_here(node):
    assert ssh().run(["printenv", "ONLY_THERE"]).out == "yes\n"
    assert not Here().run(["printenv", "ONLY_THERE"]).ok


def test_a_programs_own_255_is_no_broken_connection(node):
    assert ssh().run(["sh", "-c", "exit 255"]).code == 254


def test_all_commands_share_one_connection(node):
    before = node.logins
    for _ in range(3):
        ssh().run(["true"])
    assert node.logins == before + 1
    node.hang_up()
    ssh().run(["true"])
    assert node.logins == before + 2, "negative control: a new connection is counted"


def test_commands_that_begin_at_once_share_one_connection(node):
    before = node.logins
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda number: ssh().run(["echo", str(number)]).out, range(6)))
    assert answers == [f"{number}\n" for number in range(6)]
    assert node.logins == before + 1


def test_a_connection_that_was_killed_is_opened_anew(node):
    ssh().run(["true"])
    (shared,) = shared_connections(node)
    os.kill(shared, signal.SIGKILL)
    until(lambda: not shared_connections(node), "it is gone")
    before = node.logins
    assert ssh().run(["echo", "there"]).out == "there\n"
    assert ssh().run(["echo", "there"]).out == "there\n"
    assert node.logins == before + 1 and len(shared_connections(node)) == 1


def test_a_shared_connection_is_nobodys_child_and_holds_nothing_of_who_opened_it(node):
    """Whoever waits for the end of what a command writes would wait for the end of the connection too."""
    read, write = os.pipe()
    os.set_inheritable(write, True)
    argv = [sys.executable, "-c", _FIRST_COMMAND]
    with open(write, "wb") as end:
        subprocess.run(argv, stdout=end, stderr=end, check=True, cwd=Path(__file__).parents[2])
    with open(read, "rb") as output:
        assert output.read() == b"there\n"
    assert len(shared_connections(node)) == 1, "it is open still"


_FIRST_COMMAND = """
from skills_pipe.pipeline.cluster.config import SshTunnel
from skills_pipe.pipeline.transport.ssh import Ssh
print(Ssh(SshTunnel(host="login", job_dir="/jobs")).run(["echo", "there"]).out, end="")
"""


def test_a_shared_connection_ends_when_nobody_uses_it(node, monkeypatch):
    monkeypatch.setattr("skills_pipe.pipeline.transport.shared.PERSIST_SECONDS", 1)
    assert ssh().run(["true"]).ok
    until(lambda: not shared_connections(node), "it has ended")


def shared_connections(node: LoginNode) -> list[int]:
    """Processes that hold the shared connections of the laptop."""
    told = subprocess.run(
        ["pgrep", "-f", f"ControlMaster=yes.*{node.base}/run"], capture_output=True, text=True, check=False
    )
    return [int(word) for word in told.stdout.split()]


def test_sockets_lie_in_a_folder_of_this_user_alone(node):
    ssh().run(["true"])
    (folder,) = (node.base / "run").iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.is_socket() for path in sorted(folder.iterdir())] == [True, False], "and the lock of whoever opens it"
    folder.chmod(0o755)
    assert "open to others" in trouble(ssh())
    folder.chmod(0o700)


def test_a_folder_whose_name_is_too_long_for_sockets_is_passed_over(node, tmp_path, monkeypatch):
    folder = tmp_path / ("long-" * 12)
    folder.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    assert ssh().run(["echo", "there"]).out == "there\n"
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("reach", [Here, ssh])
def test_a_program_that_does_not_end_is_told(node, monkeypatch, reach):
    for module in ("here", "ssh"):
        monkeypatch.setattr(f"skills_pipe.pipeline.transport.{module}.TIMEOUT_SECONDS", 1)
    with pytest.raises(UserError, match=r"not ended within 1 seconds.*: try again"):
        reach().run(["sleep", "30"])


def test_the_preparation_sets_variables_and_stays_out_of_the_output(node):
    prepared = ssh(pre_command="echo banner\nexport MODE=fast\ncat")
    answer = prepared.run(["sh", "-c", 'cat; echo " $MODE"'], stdin="input")
    assert answer.out == "input fast\n"


def test_a_preparation_that_fails_is_told(node):
    message = trouble(ssh(pre_command="no_such_module load slurm"))
    assert "pre_command failed there: " in message and "no_such_module" in message


def test_a_shell_that_is_not_there_is_told(node):
    assert "its shell cannot be used: " in trouble(ssh(shell="no-such-shell"))


def test_another_shell_may_be_named(node):
    assert ssh(shell="sh").run(["printenv", "ONLY_THERE"]).out == "yes\n"


def test_a_host_that_nobody_knows_is_told(node):
    assert "no machine of this name is known" in trouble(ssh("no-such-host.invalid"))


def test_a_host_that_is_an_option_is_a_host(node):
    message = trouble(ssh("-oProxyCommand=touch${IFS}owned"))
    assert not (Path.cwd() / "owned").exists() and "no way to -oProxyCommand" in message


def test_a_port_that_nobody_listens_on_is_told(node):
    assert "nothing there listens for ssh" in trouble(ssh("closed"))


def test_a_host_that_falls_silent_is_told(node, monkeypatch):
    monkeypatch.setattr("skills_pipe.pipeline.transport.shared.TIMEOUT_SECONDS", 1)
    config = node.base / "config"
    before = config.read_text()
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        greeted = pool.submit(greet, listener)
        config.write_text(f"{before}Host mute\n    HostName 127.0.0.1\n    Port {listener.getsockname()[1]}\n")
        try:
            assert "it does not answer" in trouble(ssh("mute"))
        finally:
            config.write_text(before)
            greeted.result().close()


def greet(listener: socket.socket) -> socket.socket:
    """Say what a server of ssh says first, and nothing more."""
    connection, _ = listener.accept()
    connection.sendall(b"SSH-2.0-mute\r\n")
    return connection


def test_a_key_that_is_refused_is_told(node):
    assert "it refuses the login" in trouble(ssh("nobody"))
    # What is set in the cluster configuration wins.
    assert ssh("nobody", identity=str(node.base / "user_key")).run(["true"]).ok
    node.hang_up()
    assert "it refuses the login" in trouble(ssh("login", user="no-such-user"))


def test_an_unknown_or_changed_host_key_is_refused(node):
    known = node.base / "known_hosts"
    before = known.read_text()
    known.write_text("")
    assert "its host key is not known here" in trouble(ssh())
    node.know(node.base / "other_key.pub")
    assert "its host key has changed" in trouble(ssh())
    assert "ssh-keygen -R login" in trouble(ssh())
    known.write_text(before)
    assert ssh().run(["true"]).ok


def test_a_shared_connection_that_the_user_has_set_up_is_used(node):
    config = node.base / "config"
    before = config.read_text()
    config.write_text(f"{before}Host mine\n    HostName 127.0.0.1\n    ControlPath {node.base}/mine\n")
    try:
        assert "ControlMaster" not in "".join(ssh("mine")._ssh())
        assert "ControlMaster=no" in ssh("login")._ssh()
    finally:
        config.write_text(before)


def test_nothing_secret_is_on_the_command_line(node):
    """Whatever is sent goes over stdin: other users of both machines can read command lines."""
    seen = ssh().run(["sh", "-c", "cat > /dev/null; tr '\\0' ' ' < /proc/$PPID/cmdline"], stdin="my-secret").out
    assert "cat > /dev/null" in seen and "my-secret" not in seen


def test_a_cluster_with_a_tunnel_is_reached_through_it(node):
    tunnel = SshTunnel(host="login", job_dir="/jobs")
    far = ClusterConfig(name="far", executor=ExecutorKind.SLURM, job_dir="/jobs", ssh_tunnel=tunnel)
    assert transport_of(far).run(["printenv", "ONLY_THERE"]).ok
    assert site_of(far).facts({sys.executable: [Want.PLACE]})[sys.executable].exists
    near = ClusterConfig(name="near", executor=ExecutorKind.SLURM, job_dir="/jobs")
    assert transport_of(near) == Here()
    assert not os.environ.get("ONLY_THERE")
