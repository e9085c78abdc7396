"""How a link stands: whether it is worth trying, by what was heard over it and by what the system says of its device.

A link that falls rests for a second, and twice as long for each fall before that is not forgiven yet
(`protocol.damping`), unless it is heard meanwhile. One whose interface cannot carry anything is away: it is not tried
at all until the system says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from edge.interfaces import Interface
from protocol.damping import Damping

log = structlog.get_logger("edge.link")

_LOSS_MEMORY = 200
_SILENT_CONTACTS_TO_TURN = 3


class Standing:
    """What a link has been like.

    `usable` is what the last contact showed, `down_since` since when it is not, and `rests_until` when it may be tried
    again (both monotonic); `device` is its interface as the system has it, None when there is none or nobody looked.
    """

    def __init__(self, name: str, *, monotonic: Callable[[], float], gateway: Callable[[], str]) -> None:
        self.name = name
        self.usable = True
        self.down_since = self.rests_until = 0.0
        self.last_contact: float | None = None
        self.rtt_s: float | None = None
        self.device: Interface | None = None
        self.is_watched = False
        self._damping = Damping()
        self._now = monotonic
        self._at_gateway = gateway
        self._sent = self._lost = 0
        self._silent_contacts = 0

    @property
    def is_away(self) -> bool:
        """Whether the system says that nothing can leave over this link."""
        return self.is_watched and (self.device is None or not self.device.can_carry)

    @property
    def resting(self) -> bool:
        """Whether the link failed so lately, or its device is so, that it is not worth trying."""
        return self.is_away or (not self.usable and self._now() < self.rests_until)

    @property
    def loss(self) -> float | None:
        """The share of requests that got no answer in time, of the last hundred or so."""
        return self._lost / self._sent if self._sent else None

    @property
    def falls(self) -> float:
        """How many falls of this link are not forgiven yet."""
        return self._damping.penalty(self._now())

    def device_changed(self, device: Interface | None) -> None:
        """Hear what the system says of the link's interface; None: it is not there."""
        self.device, self.is_watched = device, True
        if self.is_away:
            self.fell()
        else:
            self.rests_until = 0.0

    def fell(self) -> bool:
        """Note that the link does not work; return whether the next gateway should be tried."""
        now = self._now()
        if self.usable:
            self.usable, self.down_since = False, now
            self.rest(self._damping.fell(now))
            log.warning("link.down", link=self.name, gateway=self._at_gateway())
        if self.is_away:
            return False  # that is not the gateway's fault
        self._silent_contacts += 1
        if self._silent_contacts < _SILENT_CONTACTS_TO_TURN:
            return False
        self._silent_contacts = 0
        return True

    def rest(self, seconds: float) -> None:
        """Leave the link alone for so long, unless it is heard before."""
        self.rests_until = max(self.rests_until, self._now() + seconds)

    def heard(self, rtt_s: float) -> None:
        """Note an answer over the link."""
        self.last_contact = self._now()
        self.rests_until = 0.0
        self._silent_contacts = 0
        self.rtt_s = rtt_s if self.rtt_s is None else 0.875 * self.rtt_s + 0.125 * rtt_s
        if not self.usable:
            self.usable = True
            log.info("link.up", link=self.name, gateway=self._at_gateway())

    def count(self, *, lost: bool) -> None:
        """Count a request that was answered, or not in time."""
        if self._sent >= _LOSS_MEMORY:
            self._sent, self._lost = self._sent // 2, self._lost // 2
        self._sent += 1
        self._lost += lost
