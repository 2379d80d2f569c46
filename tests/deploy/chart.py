"""The Helm chart, rendered as `helm template` does, and read."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.services_database import missing

try:
    import helm_python
except ImportError:  # There is a wheel for Linux on x86_64 alone in our lock.
    helm_python = None

CHART = Path(__file__).resolve().parents[2] / "deploy" / "helm" / "foretell"
NAMESPACE = "prod"
#: The releases of Kubernetes that manifests are checked for.
KUBERNETES = ("1.32", "1.34", "1.36")
#: What Kubernetes itself knows nothing of.
CUSTOM = (
    "keda.sh",
    "gateway.networking.k8s.io",
    "monitoring.coreos.com",
    "postgresql.cnpg.io",
    "rabbitmq.com",
)
WORKLOADS = ("Deployment", "Job", "Pod")

Manifest = dict[str, Any]
Values = Mapping[str, Any]


def helm() -> Any:
    """Helm's own library, or a skip."""
    if helm_python is None:
        missing("The chart is rendered by helm-python-sdk, which is not installed.")
    return helm_python


@cache
def _loaded() -> Any:
    return helm().Chart.load(CHART)


@cache
def _rendered(values: str, name: str, upgrade: bool) -> dict[str, str]:
    options: dict[str, bool] = {"is_upgrade": True} if upgrade else {"is_install": True}
    rendered: dict[str, str] = _loaded().render(json.loads(values), name=name, namespace=NAMESPACE, **options)
    return rendered


def notes(values: Values | None = None) -> str:
    """What the operator reads after an install."""
    return _rendered(json.dumps(values or {}), "foretell", False)["foretell/templates/NOTES.txt"]


def render(values: Values | None = None, *, name: str = "foretell", upgrade: bool = False) -> list[Manifest]:
    """Every manifest of a release. Raises what Helm raises."""
    # What is in the list is shared: whoever changes it copies it first.
    return list(_read(json.dumps(values or {}), name, upgrade))


@cache
def _read(values: str, name: str, upgrade: bool) -> list[Manifest]:
    texts = [text for path, text in _rendered(values, name, upgrade).items() if not path.endswith("NOTES.txt")]
    return [each for text in texts for each in yaml.load_all(text, yaml.CSafeLoader) if each]


def refusal(values: Values) -> str:
    """What Helm says of values that it refuses."""
    with pytest.raises(helm().HelmError) as caught:
        _rendered(json.dumps(values), "foretell", False)
    return str(caught.value)


def of_kind(manifests: list[Manifest], *kinds: str) -> dict[str, Manifest]:
    """Those of some kinds, by name."""
    return {each["metadata"]["name"]: each for each in manifests if each["kind"] in kinds}


def component_of(manifest: Manifest) -> str:
    """Which component a workload is."""
    return str(pod_template(manifest)["metadata"]["labels"]["app.kubernetes.io/component"])


def pod_template(manifest: Manifest) -> Manifest:
    """The pod of a workload."""
    template: Manifest = manifest if manifest["kind"] == "Pod" else manifest["spec"]["template"]
    return template


def containers(manifest: Manifest) -> Iterator[Manifest]:
    """All its containers, those that run first, too."""
    spec = pod_template(manifest)["spec"]
    yield from spec.get("initContainers", [])
    yield from spec["containers"]


def environment(manifest: Manifest) -> dict[str, Any]:
    """The variables of the first container: a value, or where it comes from."""
    (container,) = pod_template(manifest)["spec"]["containers"]
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


def schema_of(kubernetes: str, manifest: Manifest) -> dict[str, Any]:
    """The strict schema of a kind in a release of Kubernetes, from `kubernetes-validate`."""
    group, _, version = manifest["apiVersion"].rpartition("/")
    short = "-".join(part for part in (group.split(".")[0], version) if part)
    return _schema(kubernetes, f"{manifest['kind'].lower()}-{short}.json")


@cache
def definitions(kubernetes: str) -> dict[str, Any]:
    """What the schemas of a release of Kubernetes refer to."""
    return _schema(kubernetes, "_definitions.json")


@cache
def _schema(kubernetes: str, name: str) -> dict[str, Any]:
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{kubernetes}.0-local-strict"
    with as_file(folder / name) as path:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
