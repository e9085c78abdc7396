"""Token buckets: how many requests one address or one token may make.

Pure but for the state it keeps: the caller brings a monotonic `now_s`. The number of buckets is bounded; a flood of
addresses makes it forget the least recently seen, which then start full again: the connection cap stands before this.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass


@dataclass(slots=True)
class _Bucket:
    level: float
    at_s: float


class TokenBuckets:
    """One bucket a key: `burst` requests at once, refilled by `rate` a second."""

    def __init__(self, *, rate: float, burst: float, keys_max: int) -> None:
        self._rate = rate
        self._burst = burst
        self._keys_max = keys_max
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, key: str, now_s: float, cost: float = 1.0) -> float:
        """Take `cost` from the bucket of `key`; return 0.0, or how many seconds to wait when it is not there."""
        bucket = self._bucket(key, now_s)
        if bucket.level < cost:
            return (cost - bucket.level) / self._rate
        bucket.level -= cost
        return 0.0

    def charge(self, key: str, now_s: float, cost: float) -> None:
        """Take `cost` even if the bucket goes below empty, at most one whole burst below."""
        bucket = self._bucket(key, now_s)
        bucket.level = max(bucket.level - cost, -self._burst)

    def __len__(self) -> int:
        return len(self._buckets)

    def _bucket(self, key: str, now_s: float) -> _Bucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(self._burst, now_s)
            if len(self._buckets) > self._keys_max:
                self._buckets.popitem(last=False)
            return bucket
        self._buckets.move_to_end(key)
        bucket.level = min(self._burst, bucket.level + max(0.0, now_s - bucket.at_s) * self._rate)
        bucket.at_s = now_s
        return bucket


def address_key(address: str | None) -> str:
    """Return what counts as one client: an IPv4 address, or the /64 of an IPv6 one, which one host can fill."""
    try:
        parsed = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
