"""What Prometheus is told, in a registry of the application's own."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from core.domain.lifecycle import JobState
from core.jobs import JobKind

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)  # seconds


class Metrics:
    """Counts requests by method, path template and status, never by path: ids would make a series each."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ["method", "path", "status"]
        self._requests = Counter("causeway_requests", "Requests answered.", labels, registry=self._registry)
        self._seconds = Histogram(
            "causeway_request_seconds",
            "From the first byte asked to the last byte answered.",
            ["method", "path"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._jobs = Gauge("causeway_jobs", "Jobs of all tenants.", ["kind", "state"], registry=self._registry)

    def answered(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(method, path, str(status)).inc()
        self._seconds.labels(method, path).observe(seconds)

    def exposition(self, jobs: Mapping[tuple[str, str], int]) -> bytes:
        """All metrics in Prometheus' text format, with jobs counted by (kind, state)."""
        for kind in JobKind:
            for state in JobState:
                self._jobs.labels(kind, state).set(jobs.get((kind, state), 0))
        return generate_latest(self._registry)
