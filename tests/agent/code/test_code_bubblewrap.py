"""The probe and the command line: a machine that cannot isolate is told so, and never served worse."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from agentstream.agent.code import Limits, SandboxReport, bubblewrap, probe, sandbox
from agentstream.agent.code.bubblewrap import Mount, Sandbox
from agentstream.errors import MissingExtra, NoSandbox


@pytest.mark.real("bwrap")
def test_here_it_works() -> None:
    """With bubblewrap and the extra installed the report says so, in words."""
    report = probe()
    assert report.ok, str(report)
    assert report.version in str(report)
    report.require()
    assert sandbox().isolated


def test_without_bubblewrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the package to install; nothing takes the sandbox's place."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(NoSandbox, match="apt-get install bubblewrap"):
        sandbox()


def test_on_another_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux only, and it says so."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "for Linux, this is darwin" in str(probe())


@pytest.mark.real("bwrap")
def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries that are missing are another error than a machine that cannot."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"ipykernel.*agentstream\[exec\]"):
        sandbox()


@pytest.mark.parametrize(
    ("version", "stderr", "words"),
    [
        ("bubblewrap 0.4.1", "", "too old"),
        ("bubblewrap 0.8.0", "bwrap: No permissions to create new namespace", "seccomp profile"),
        ("bubblewrap 0.8.0", "bwrap: setting up uid map: Permission denied", "AppArmor"),
        ("bubblewrap 0.8.0", "something else", "something else"),
    ],
)
def test_a_machine_that_does_not_allow_it(
    monkeypatch: pytest.MonkeyPatch, version: str, stderr: str, words: str
) -> None:
    """What bubblewrap complains about is passed on, with what can be done."""

    def run(command: Sequence[str], **_options: Any) -> subprocess.CompletedProcess[bytes]:
        if command[-1] == "--version":
            return subprocess.CompletedProcess(command, 0, version.encode(), b"")
        return subprocess.CompletedProcess(command, 1, b"", stderr.encode())

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    report = probe()
    assert not report.ok
    assert words in " ".join(report.missing)
    with pytest.raises(NoSandbox):
        report.require()


def test_a_hanging_sandbox_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe that does not end is a problem like another."""

    def run(command: Sequence[str], **_options: Any) -> subprocess.CompletedProcess[bytes]:
        if command[-1] == "--version":
            return subprocess.CompletedProcess(command, 0, b"bubblewrap 0.9.0", b"")
        raise subprocess.TimeoutExpired(command, 10)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert "did not end" in str(probe())


@pytest.mark.parametrize("root", [True, False])
def test_the_command_line_isolates(monkeypatch: pytest.MonkeyPatch, root: bool) -> None:
    """Everything is unshared, nothing of the host but libraries and what was named is there, root is given up first."""
    monkeypatch.setattr(bubblewrap.os, "geteuid", lambda: 0 if root else 1000)
    command = Sandbox("/usr/bin/bwrap", limits=Limits(disk_bytes=123)).command(["x"], mounts=[Mount("/a/b", "/inputs")])
    assert ("setpriv" in command) is root
    inner = command[command.index("setpriv") :] if root else command
    for option in ("--unshare-all", "--disable-userns", "--die-with-parent", "--new-session", "--clearenv"):
        assert option in inner
    assert inner[inner.index("--cap-drop") + 1] == "ALL"
    assert inner[inner.index("123") - 1 : inner.index("123") + 3] == ["--size", "123", "--tmpfs", "/sandbox"]
    bound = [command[at + 1] for at, option in enumerate(command) if option in ("--ro-bind", "--bind", "--dev-bind")]
    assert not {"/", "/etc", "/home", "/root", "/var", "/tmp", "/run"} & set(bound)
    assert "/a/b" in bound


def test_reports_say_what_is_missing() -> None:
    """In one line, for people."""
    assert str(SandboxReport(("no luck",), ("zmq",))) == "no sandbox: no luck; zmq (pip install 'agentstream[exec]')"
