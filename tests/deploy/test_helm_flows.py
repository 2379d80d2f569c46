"""The network policies let through what the services need, and nothing else.

What they need is read from what they import and from the addresses they are given.
"""

from functools import cache

import grimp
import pytest
from tests.deploy.chart import environment, of_kind, pod_template, render
from tests.deploy.charted import EVERYTHING, OPERATORS, UPLOADS, WATCHED, merged
from tests.deploy.flows import Place, allowed

from foretell.local.services import SERVICES

COMPONENTS = {service.compose_name or service.name: service for service in SERVICES}
PORTS = {
    "app": 8000,
    "model-service": 8001,
    "preprocessing-service": 8002,
    "monitoring-service": 8003,
    "bot": 8004,
    "dispatcher": 8004,
    "ml-worker": 8005,
}
POSTGRESQL = Place({"cnpg.io/cluster": "foretell-postgres", "app.kubernetes.io/instance": "foretell"})
RABBITMQ = Place({"app.kubernetes.io/name": "foretell-rabbitmq", "foretell": "inherited"})
PUBLIC, PRIVATE, METADATA = Place(address="93.184.216.34"), Place(address="10.9.8.7"), Place(address="169.254.169.254")
DNS = Place({"k8s-app": "kube-dns"}, {"kubernetes.io/metadata.name": "kube-system"})
STRANGER = Place({"app.kubernetes.io/name": "other"})
ELSEWHERE = Place({"app.kubernetes.io/name": "other"}, {"kubernetes.io/metadata.name": "elsewhere"})
PROMETHEUS = Place({"app": "prometheus"}, {"name": "monitoring"})
CONTROLLER = Place({"app": "traefik"}, {"name": "ingress"})


@cache
def _graph() -> grimp.ImportGraph:
    return grimp.build_graph("foretell", include_external_packages=True)


@cache
def _imported(package: str) -> set[str]:
    return set(_graph().find_upstream_modules(package, as_package=True)) | _graph().find_descendants(package)


def _imports(component: str, *modules: str) -> bool:
    """Whether a service's own modules, or those they import, import any of these."""
    return bool(_imported(COMPONENTS[component].module.rpartition(".")[0]) & set(modules))


def _place(component: str, values: dict[str, object]) -> Place:
    deployment = of_kind(render(values), "Deployment")[f"foretell-{component}"]
    return Place(pod_template(deployment)["metadata"]["labels"])


def _needed(source: str) -> set[str]:
    """Whom a service connects to: by its settings where it has an address, by what it imports where it has a driver."""
    given = environment(of_kind(render(EVERYTHING_IN_DATABASE), "Deployment")[f"foretell-{source}"])
    needed = {
        component
        for component in COMPONENTS
        if any(f"//foretell-{component}:{PORTS[component]}" in str(value) for value in given.values())
    }
    if _imports(source, "foretell.broker.connect"):
        needed.add("rabbitmq")
    if _imports(source, "asyncpg"):
        needed.add("postgresql")
    # The addresses of others: webhooks, channels of alerts, Telegram.
    if _imports(source, *_TO_OTHERS):
        needed.add("internet")
    return needed


#: What connects to addresses that are not ours.
_TO_OTHERS = (
    "foretell.kit.outgoing",
    "foretell.services.bot.telegram.api",
    "foretell.services.monitoring.alerts.channels",
)
#: The monitoring service with its records in PostgreSQL.
EVERYTHING_IN_DATABASE = merged(EVERYTHING, {"monitoringService": {"persistence": {"enabled": False}}})


def test_what_is_needed_is_read_from_the_code() -> None:
    """If this is not so any more, the table below says something else than the architecture."""
    assert _needed("app") == {"postgresql", "rabbitmq", "monitoring-service"}
    assert _needed("dispatcher") == {"postgresql", "rabbitmq", "monitoring-service", "bot", "internet"}
    assert _needed("ml-worker") == {"rabbitmq", "monitoring-service"}
    assert _needed("model-service") == {"monitoring-service"}
    assert _needed("preprocessing-service") == {"monitoring-service"}
    assert _needed("monitoring-service") == {"postgresql", "rabbitmq", "internet"}
    assert _needed("bot") == {"app", "monitoring-service", "internet"}


@pytest.mark.parametrize("source", COMPONENTS)
def test_each_service_reaches_what_it_needs_and_nothing_else(source: str) -> None:
    values = EVERYTHING_IN_DATABASE
    policies = [each for each in render(values) if each["kind"] == "NetworkPolicy"]
    here = _place(source, values)
    targets = {component: (_place(component, values), PORTS[component]) for component in COMPONENTS}
    targets |= {"postgresql": (POSTGRESQL, 5432), "rabbitmq": (RABBITMQ, 5672), "internet": (PUBLIC, 8443)}
    reached = {name for name, (there, port) in targets.items() if allowed(policies, here, there, port)}
    # Every pod of the namespace may ask these two, so it is only their callers' own policy that counts.
    assert reached == _needed(source)
    assert allowed(policies, here, DNS, 53, "UDP")
    assert not allowed(policies, here, DNS, 443)
    assert not allowed(policies, here, PRIVATE, 443)
    assert not allowed(policies, here, METADATA, 80)
    assert not allowed(policies, here, STRANGER, 80)


@pytest.mark.parametrize("component", COMPONENTS)
def test_who_may_ask_a_service(component: str) -> None:
    values = EVERYTHING_IN_DATABASE
    policies = [each for each in render(values) if each["kind"] == "NetworkPolicy"]
    there, port = _place(component, values), PORTS[component]
    assert allowed(policies, PROMETHEUS, there, port)
    assert allowed(policies, CONTROLLER, there, port) == (component in ("app", "bot"))
    assert allowed(policies, STRANGER, there, port) == (component in ("model-service", "preprocessing-service"))
    assert not allowed(policies, ELSEWHERE, there, port)
    assert not allowed(policies, PROMETHEUS, there, port + 1)


def test_with_uploads_app_and_model_service_write_models_and_the_app_sends_them_there() -> None:
    values = merged(EVERYTHING_IN_DATABASE, UPLOADS)
    deployments = of_kind(render(values), "Deployment")
    for name, deployment in deployments.items():
        (container,) = pod_template(deployment)["spec"]["containers"]
        mounts = {each["name"]: each.get("readOnly", False) for each in container["volumeMounts"]}
        writes = name in ("foretell-app", "foretell-model-service")
        assert mounts.get("models", True) is not writes, name
    app, model = (environment(deployments[f"foretell-{name}"]) for name in ("app", "model-service"))
    assert app["FORETELL_PACKAGE_SERVICE_URL"] == "http://foretell-model-service:8001"
    assert app["FORETELL_ADMIN_TOKEN"] == model["FORETELL_ADMIN_TOKEN"]
    assert app["FORETELL_MODEL_UPLOADS"] == model["FORETELL_MODEL_UPLOADS"] == "true"
    # The pods of the namespace aside, who are let in as a rule.
    narrow = merged(values, {"modelService": {"clients": [{"podSelector": {"matchLabels": {"may": "ask"}}}]}})
    policies = [each for each in render(narrow) if each["kind"] == "NetworkPolicy"]
    there = _place("model-service", narrow)
    assert allowed(policies, _place("app", narrow), there, 8001)
    assert not allowed(policies, _place("dispatcher", narrow), there, 8001)


def test_without_values_the_app_is_open_and_the_rest_is_not() -> None:
    policies = [each for each in render() if each["kind"] == "NetworkPolicy"]
    for component in ("app", "dispatcher", "ml-worker", "monitoring-service"):
        assert allowed(policies, ELSEWHERE, _place(component, {}), PORTS[component]) == (component == "app")


def test_servers_that_are_ours_by_operators_are_not_shut_off() -> None:
    policies = [each for each in render(OPERATORS) if each["kind"] == "NetworkPolicy"]
    for server, port in ((POSTGRESQL, 5432), (RABBITMQ, 25672)):
        # Among themselves, and by their operator.
        assert allowed(policies, server, server, port)
        assert allowed(policies, ELSEWHERE, server, port)


def test_an_external_database_is_reached_where_it_is() -> None:
    peers = {"peers": [{"ipBlock": {"cidr": "10.9.0.0/16"}}]}
    values = {"postgresql": {"external": {"port": 6432, **peers}}, "rabbitmq": {"external": {"ports": [5671], **peers}}}
    policies = [each for each in render(values) if each["kind"] == "NetworkPolicy"]
    app = _place("app", values)
    assert allowed(policies, app, PRIVATE, 6432)
    assert allowed(policies, app, PRIVATE, 5671)
    assert not allowed(policies, app, PRIVATE, 5672)
    assert not allowed(policies, app, PUBLIC, 6432)


def test_monitoring_with_a_file_of_its_own_needs_no_database() -> None:
    policies = [each for each in render(merged(OPERATORS, WATCHED)) if each["kind"] == "NetworkPolicy"]
    assert not allowed(policies, _place("monitoring-service", WATCHED), POSTGRESQL, 5432)


@pytest.mark.parametrize("component", ["migrations", "test"])
def test_hooks_reach_what_they_need(component: str) -> None:
    manifests = render(merged(OPERATORS, {"networkPolicy": {"appClients": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}}))
    policies = [each for each in manifests if each["kind"] == "NetworkPolicy"]
    pod = pod_template(of_kind(manifests, "Job", "Pod")[f"foretell-{component}"])
    here = Place(pod["metadata"]["labels"])
    assert allowed(policies, here, POSTGRESQL, 5432) == (component == "migrations")
    for asked in ("app", "model-service", "preprocessing-service", "monitoring-service"):
        assert allowed(policies, here, _place(asked, {}), PORTS[asked]) == (component == "test")
    assert not allowed(policies, here, PUBLIC, 443)
