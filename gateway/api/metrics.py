"""What the API counts, in a Prometheus registry of its own (never the process-wide one, which tests would share)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)


class ApiMetrics:
    """Requests by route template (never by address, which a stranger chooses), their time, and open streams."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.requests = Counter(
            "digitruck_api_requests", "HTTP requests answered.", ("method", "route", "status"), registry=registry
        )
        self.seconds = Histogram(
            "digitruck_api_request_seconds", "Time to answer.", ("route",), buckets=_SECONDS, registry=registry
        )
        self.limited = Counter("digitruck_api_limited", "Requests refused by a rate limit.", ("by",), registry=registry)
        self.refused_tokens = Counter(
            "digitruck_api_refused_tokens", "Requests with a token that is not taken.", registry=registry
        )
        self.streams = Gauge("digitruck_api_streams", "Open event streams.", registry=registry)
