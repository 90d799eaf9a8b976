"""Every metric's name, unit and meaning (`recorder`), and where the figures go (`exporters`)."""

from .recorder import METRICS, Exporter, Metric, MetricsRecorder

__all__ = ["METRICS", "Exporter", "Metric", "MetricsRecorder"]
