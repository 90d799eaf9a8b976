"""Where the figures of `system.metrics` go: to Ray's metrics inside Ray, to a Prometheus registry outside, nowhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from .recorder import METRICS, Metric


class NullExporter:
    """Exports nothing: the figures stay in the recorder."""

    def count(self, metric: Metric, labels: Mapping[str, str], amount: float) -> None:
        """Nothing."""

    def set(self, metric: Metric, labels: Mapping[str, str], value: float) -> None:
        """Nothing."""

    def observe(self, metric: Metric, labels: Mapping[str, str], values: Sequence[float]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class RayExporter:
    """Exports through Ray's metrics agent of this node, under the metric's name with ``ray_`` before it.

    For a process that has joined a Ray cluster. A figure is there to be scraped after at most the cluster's
    ``metrics_report_interval_ms`` (10 s where it is not set). Ray adds labels, ``WorkerId`` among them: sum without it.
    Ray keeps a histogram's values by bucket alone, so its ``_sum`` is that of the buckets' middles.
    """

    def __init__(self) -> None:
        from ray.util import metrics as ray_metrics

        self._counters = {
            metric: ray_metrics.Counter(metric.name, metric.help, _label_names(metric)) for metric in _of("counter")
        }
        self._gauges = {
            metric: ray_metrics.Gauge(metric.name, metric.help, _label_names(metric)) for metric in _of("gauge")
        }
        self._histograms = {
            metric: ray_metrics.Histogram(metric.name, metric.help, list(metric.boundaries), _label_names(metric))
            for metric in _of("histogram")
        }

    def count(self, metric: Metric, labels: Mapping[str, str], amount: float) -> None:
        """As `Exporter.count`."""
        self._counters[metric].inc(amount, tags=dict(labels))

    def set(self, metric: Metric, labels: Mapping[str, str], value: float) -> None:
        """As `Exporter.set`."""
        self._gauges[metric].set(value, tags=dict(labels))

    def observe(self, metric: Metric, labels: Mapping[str, str], values: Sequence[float]) -> None:
        """As `Exporter.observe`."""
        for value in values:
            self._histograms[metric].observe(value, tags=dict(labels))

    def close(self) -> None:
        """Nothing: Ray exports as long as the process lives."""


class PrometheusExporter:
    """Exports to a Prometheus registry, and serves it over HTTP where a port is given. For processes outside Ray.

    Args:
        registry: where the metrics are registered, once; None makes one.
        port: to serve ``/metrics`` on; 0 takes a free one, None serves nothing.
        address: to listen on; ``"0.0.0.0"`` lets other machines in.

    Attributes:
        registry: holds the metrics.
        port: that is listened on, None where nothing is served.

    Raises:
        OSError: the port is taken, or the address is none of this machine's.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        port: int | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        self._counters = {
            metric: Counter(metric.name, metric.help, _label_names(metric), registry=self.registry)
            for metric in _of("counter")
        }
        self._gauges = {
            metric: Gauge(metric.name, metric.help, _label_names(metric), registry=self.registry)
            for metric in _of("gauge")
        }
        self._histograms = {
            metric: Histogram(
                metric.name, metric.help, _label_names(metric), buckets=metric.boundaries, registry=self.registry
            )
            for metric in _of("histogram")
        }
        self._server = None if port is None else _serve(port, address, self.registry)
        self.port = None if self._server is None else self._server[0].server_port

    def count(self, metric: Metric, labels: Mapping[str, str], amount: float) -> None:
        """As `Exporter.count`."""
        self._counters[metric].labels(**labels).inc(amount)

    def set(self, metric: Metric, labels: Mapping[str, str], value: float) -> None:
        """As `Exporter.set`."""
        self._gauges[metric].labels(**labels).set(value)

    def observe(self, metric: Metric, labels: Mapping[str, str], values: Sequence[float]) -> None:
        """As `Exporter.observe`."""
        histogram = self._histograms[metric].labels(**labels)
        for value in values:
            histogram.observe(value)

    def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            server, thread = self._server
            server.shutdown()
            server.server_close()
            thread.join()
            self._server = self.port = None


def _of(kind: str) -> list[Metric]:
    return [metric for metric in METRICS.values() if metric.kind == kind]


def _label_names(metric: Metric) -> tuple[str, ...]:
    return ("run", *metric.labels)


def _serve(port: int, address: str, registry: CollectorRegistry) -> tuple[WSGIServer, Thread]:
    try:
        return start_http_server(port, address, registry)
    except OSError as error:
        raise OSError(error.errno, f"metrics cannot be served on {address}:{port}: {error.strerror}") from error
