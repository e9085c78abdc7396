"""Network namespaces and tun devices, by iproute2 and ioctl. Needs root; `why_not` says what is missing."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import struct
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000

T = TypeVar("T")


def why_not() -> str:
    """Return why namespaces cannot be had here, or an empty text."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if any(shutil.which(command) is None for command in ("ip", "nft", "sysctl")):
        return "ip, nft or sysctl is not installed (Debian: apt-get install iproute2 nftables procps)"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun here"
    probe = f"dtprobe{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"namespaces cannot be made here: {made.stderr.strip()}"
    run("ip", "netns", "del", probe)
    return ""


def run(*command: str) -> str:
    """Run a command; return what it printed, raise `RuntimeError` with what it complained about."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Counted:
    """IP bytes that a device of a namespace sent and received, and how many packets they were, by the kernel."""

    sent_bytes: int
    received_bytes: int
    sent_packets: int
    received_packets: int


class Namespace:
    """One network namespace; `enter` before a command runs the command in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        run("ip", "netns", "add", name)
        # Devices made here speak IPv6 only when asked to: their solicitations would be bytes that no test sent.
        run(*self.enter, "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
        self.ip("link", "set", "lo", "up")

    @property
    def enter(self) -> tuple[str, ...]:
        """The words that put a command into this namespace."""
        return "ip", "netns", "exec", self.name

    def ip(self, *words: str) -> str:
        """Run `ip` in this namespace."""
        return run("ip", "-n", self.name, *words)

    def delete(self) -> None:
        """Take the namespace away, with its devices."""
        run("ip", "netns", "del", self.name)

    def inside(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread that is in this namespace: a socket or device that it opens stays in it."""
        results: list[T] = []
        failures: list[BaseException] = []

        def enter_and_work() -> None:
            try:
                descriptor = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
                try:
                    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), f"setns to {self.name}")
                finally:
                    os.close(descriptor)
                results.append(work())
            except BaseException as failure:
                failures.append(failure)

        # Only this thread changes its namespace, and it ends here.
        thread = threading.Thread(target=enter_and_work, name=f"in-{self.name}")
        thread.start()
        thread.join()
        if failures:
            raise failures[0]
        return results[0]

    def open_tun(self, device: str, mtu_bytes: int) -> int:
        """Make a tun device and return the descriptor of its other end: a packet a read, a packet a write."""

        def make() -> int:
            descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", device.encode(), _IFF_TUN | _IFF_NO_PI))
            return descriptor

        descriptor = self.inside(make)
        self.ip("link", "set", "dev", device, "mtu", str(mtu_bytes), "up")
        return descriptor

    def counted(self, device: str) -> Counted:
        """Read the kernel's counters of a device; of a tun device they count IP packets, headers included."""
        (found,) = json.loads(self.ip("-s", "-j", "link", "show", "dev", device))
        stats = found["stats64"]
        return Counted(stats["tx"]["bytes"], stats["rx"]["bytes"], stats["tx"]["packets"], stats["rx"]["packets"])

    def icmp_bytes(self) -> int:
        """Return the bytes of ICMP that this namespace sent or received since `count_icmp`."""
        listed = json.loads(run(*self.enter, "nft", "-j", "list", "counters"))["nftables"]
        return sum(each["counter"]["bytes"] for each in listed if "counter" in each)

    def count_icmp(self) -> None:
        """Count ICMP apart from here on: it is the kernel's own traffic, which no meter of ours sees."""
        rules = """
        table inet lab {
            counter control { }
            chain into { type filter hook input priority 0; meta l4proto { icmp, icmpv6 } counter name control; }
            chain out { type filter hook output priority 0; meta l4proto { icmp, icmpv6 } counter name control; }
        }
        """
        subprocess.run([*self.enter, "nft", "-f", "-"], input=rules, text=True, check=True)
