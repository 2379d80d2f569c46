"""What is measured of the models in this process."""

from collections.abc import Iterable

from prometheus_client import Gauge

from foretell.inference.package import ModelPackage
from foretell.kit.gauge_table import GaugeTable

_INFO = GaugeTable(Gauge("foretell_model_info", "1 for each model version that is loaded here.", ["model", "version"]))


def show_loaded(packages: Iterable[ModelPackage]) -> None:
    """These are loaded now, and no others."""
    _INFO.show({(package.name, package.version): 1.0 for package in packages})
