"""Every bound of the HTTP API in one place, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.numbers import DOCUMENT_BYTES_MAX, STICK_UPLOADS_BYTES_MAX

PAGE_ITEMS_MAX = 1_000  # that a client may ask for
PAGE_ITEMS_SERVED = 500  # the store reads at most 1,000 at once, and one more than a page is read to know of a next
PAGE_ITEMS = 100
SAMPLE_ROWS_MAX = 50_000
SAMPLE_ROWS = 10_000
CHANNELS_CHARS_MAX = 2_048
# Every series that a scrape brings costs a Prometheus some kilobytes of memory.
METRIC_TRUCKS_MAX = 10_000
METRIC_CHANNELS_MAX = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiLimits:
    """What one client may cost; the defaults suit a gateway of some thousand trucks and some dozen people."""

    # A JSON body is a few fields; a document may be a manifest of 100,000 files; a blob is one file of a bundle.
    json_bytes_max: int = 64 * 1024
    document_bytes_max: int = DOCUMENT_BYTES_MAX
    blob_bytes_max: int = 1 << 40
    # What a truck gives a courier in one file, with what seals it.
    carried_bytes_max: int = STICK_UPLOADS_BYTES_MAX + 1024
    # A body must be there within this time, and a blob must keep this pace, or a slow sender holds a connection.
    body_deadline_s: float = 20.0
    body_rate_bps_min: int = 32_000
    # A request's headers must be there within this time; it is also how long an idle connection is kept.
    idle_s: float = 30.0
    # After a refused upload, what was already on its way is read and thrown away for this long, so that the refusal
    # is not lost in a reset connection.
    linger_s: float = 2.0
    # An answer that takes longer is given up (streams have no deadline).
    answer_deadline_s: float = 60.0
    connections_max: int = 512
    connections_per_address_max: int = 128
    streams_max: int = 128
    # Files of telemetry and evidence that are written at a time, since each takes all of a core; the next wait so long.
    exports_max: int = 4
    export_wait_s: float = 30.0
    # Requests a second and the burst that is let through, for each address before sign-in and each token after it.
    address_rate: float = 50.0
    address_burst: float = 400.0
    token_rate: float = 50.0
    token_burst: float = 400.0
    # A wrong token costs its address as much as this many requests.
    wrong_token_cost: float = 20.0
    # How many addresses and tokens are remembered; the least recently seen is forgotten first.
    buckets_max: int = 10_000
