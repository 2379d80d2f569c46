"""What the monitoring service can be told, and where it keeps its records."""

from pathlib import Path

import pytest

from foretell.kit.errors import Misconfigured
from foretell.services.monitoring.settings import MonitoringSettings


def test_records_have_a_file_of_their_own_or_stand_beside_the_products_tables() -> None:
    assert MonitoringSettings(data_dir=Path("/x")).monitoring_database_url == "sqlite:////x/monitoring.db"
    server = "postgresql://somebody@somewhere/foretell"
    assert MonitoringSettings(database_url=server).monitoring_database_url == server
    assert MonitoringSettings(database_url=server).schema_name == "monitoring"
    assert MonitoringSettings(database_url=server, monitoring_database_url="sqlite:///y").monitoring_database_url == (
        "sqlite:///y"
    )


def test_production_needs_a_token_that_is_no_guess() -> None:
    for token in ("", "short", "ü" * 20, "a" * 16, "ab" * 20, "change-me-change-me"):
        with pytest.raises(Misconfigured, match="FORETELL_MONITORING_TOKEN"):
            MonitoringSettings(environment="production", monitoring_token=token)
    MonitoringSettings(environment="production", monitoring_token="long enough to be none")
    MonitoringSettings()
