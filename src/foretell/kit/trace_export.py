"""Starts the recording and export of spans, if the environment configures it."""

import os
from collections.abc import Mapping

import structlog

from foretell.kit import tracing

log = structlog.get_logger()

#: The standard settings for the endpoint: with one of them, spans are recorded.
ENDPOINT_SETTINGS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def start(service: str, instance: str, messaging_system: str, environment: Mapping[str, str] = os.environ) -> None:
    """Record this process's spans if the environment has an endpoint and the extra `otel` is installed.

    Never raises: a mistake in the tracing must not stop predictions.
    """
    setting = next((name for name in ENDPOINT_SETTINGS if environment.get(name)), "")
    disabled = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if not setting or disabled or environment.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() == "none":
        return
    try:
        # Imported here, because it takes most of a second and about 20 MB.
        from foretell.kit.telemetry import open_tracer

        tracing.install(open_tracer(service, instance, messaging_system))
    except ImportError:
        log.warning(
            "traces_not_recorded",
            reason=f"{setting} is set, but OpenTelemetry is not installed. Install foretell with its extra otel.",
        )
    except Exception as error:
        # Only the type, because settings of the exporter may be secret.
        log.warning("traces_not_recorded", reason="OpenTelemetry refuses its settings", error_type=type(error).__name__)
