"""sd_notify against a real datagram socket, in the file system and in the abstract namespace."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from edge.notify import notify


def listening(name: str) -> socket.socket:
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    channel.bind(name)
    channel.settimeout(5)
    return channel


def test_a_state_reaches_the_service_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    with listening(path) as channel:
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        assert notify("READY=1")
        assert notify("WATCHDOG=1")
        assert (channel.recv(64), channel.recv(64)) == (b"READY=1", b"WATCHDOG=1")


def test_an_at_sign_stands_for_the_abstract_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"digitruck-test-{os.getpid()}"
    with listening("\0" + name) as channel:
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        assert notify("READY=1")
        assert channel.recv(64) == b"READY=1"


@pytest.mark.parametrize("address", ["", "relative", "/nobody/listens/here", "@nobody-is-here", "/" + "x" * 300])
def test_nobody_there_is_no_error(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify("READY=1")


def test_a_manager_that_does_not_read_never_stops_the_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    with listening(path):
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        assert not all(notify("WATCHDOG=1") for _ in range(5_000))  # the socket's queue is full long before
