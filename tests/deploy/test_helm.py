"""The Helm chart: what it makes is what Kubernetes takes, and what its pods may do is little."""

import re
from copy import deepcopy
from typing import Any

import jsonschema_rs
import pytest
import yaml
from tests.deploy.chart import (
    CHART,
    CUSTOM,
    KUBERNETES,
    NAMESPACE,
    WORKLOADS,
    Manifest,
    component_of,
    containers,
    definitions,
    environment,
    helm,
    notes,
    of_kind,
    pod_template,
    refusal,
    render,
    schema_of,
)
from tests.deploy.charted import BOT, COMBINATIONS, EVERYTHING, OPERATORS, PICKY, SCALING, UPLOADS, merged
from typer.main import get_command

from foretell.cli.main import app as command_line
from foretell.contracts.queues import tasks_queue
from foretell.local.services import SERVICES
from foretell.services.dispatcher import measures as dispatcher_measures
from foretell.services.dispatcher.settings import DispatcherSettings
from foretell.services.worker.settings import WorkerSettings

combinations = pytest.mark.parametrize("values", COMBINATIONS.values(), ids=COMBINATIONS)


@pytest.fixture(scope="module", params=KUBERNETES)
def strict(request: pytest.FixtureRequest) -> Any:
    """Checks a manifest as strictly as the API server of a release of Kubernetes with `--validate=strict`."""
    kubernetes = request.param
    shared = definitions(kubernetes)
    registry = jsonschema_rs.Registry([(shared["$id"], shared)])
    known: dict[tuple[str, str], jsonschema_rs.Draft202012Validator] = {}

    def check(manifest: Manifest) -> list[str]:
        key = manifest["apiVersion"], manifest["kind"]
        if key not in known:
            known[key] = jsonschema_rs.Draft202012Validator(schema_of(kubernetes, manifest), registry=registry)
        return [f"{list(error.instance_path)}: {error.message}" for error in known[key].iter_errors(manifest)]

    return check


@pytest.mark.parametrize("values", [{}, PICKY, EVERYTHING], ids=["default", "picky", "everything"])
def test_lint_finds_nothing(values: dict[str, Any]) -> None:
    found = helm().lint(CHART, values, strict=True, namespace=NAMESPACE)
    assert found["errors"] == []
    # An icon is a picture of somebody's.
    assert [each["error"] for each in found["messages"]] == ["icon is recommended"]


@combinations
def test_kubernetes_takes_it(values: dict[str, Any], strict: Any) -> None:
    for manifest in render(values):
        if manifest["apiVersion"].split("/")[0] not in CUSTOM:
            assert strict(manifest) == [], (manifest["kind"], manifest["metadata"]["name"])


def test_the_check_finds_what_stands_at_the_wrong_place(strict: Any) -> None:
    deployment = deepcopy(of_kind(render(), "Deployment")["foretell-app"])
    assert strict(deployment) == []
    deployment["spec"]["template"]["strategy"] = deployment["spec"].pop("strategy")
    assert strict(deployment)
    deployment["spec"]["template"].pop("strategy")
    deployment["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"] = "8000"
    assert strict(deployment)


@combinations
@pytest.mark.parametrize("name", ["foretell", "a-release-whose-name-is-as-long-as-helm-will-take-it0"])
def test_names_fit_and_are_unique(values: dict[str, Any], name: str) -> None:
    manifests = render(values, name=name)
    names = [(each["kind"], each["metadata"]["name"]) for each in manifests]
    assert len(names) == len(set(names))
    for kind, made in names:
        # Of what operators and KEDA make from it, the longest must fit, too.
        most = {"Cluster": 50, "RabbitmqCluster": 63 - len("-server-1234567890"), "ScaledObject": 63 - len("keda-hpa-")}
        assert len(made) <= most.get(kind, 63), (kind, made)
        assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", made)
    for manifest in manifests:
        assert manifest["metadata"]["namespace"] == NAMESPACE
        for value in manifest["metadata"].get("labels", {}).values():
            assert len(value) <= 63


def test_a_pool_with_a_long_name_has_a_name_of_its_own() -> None:
    long = "a-pool-with-a-name-that-is-long-indeed-and-goes-on"
    pools = {f"{long}-{number}": {"autoscaling": {"enabled": True}} for number in (1, 2)}
    values = {"worker": {"pools": pools}, "autoscaling": {"prometheusUrl": "http://prometheus:9090"}}
    scaled = of_kind(render(values), "ScaledObject")
    assert len(scaled) == 2
    assert all(len(name) <= 54 for name in scaled)


# What values are refused.


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"replicas": 3}, "replicas"),
        ({"app": {"replica": 3}}, "replica"),
        ({"strategy": {"type": "Recreate"}}, "strategy"),
        ({"app": {"resources": {"strategy": {"type": "Recreate"}}}}, "strategy"),
        ({"app": {"strategy": {"maxUnavailable": 0}}}, "maxUnavailable"),
        ({"worker": {"pools": {"gpu": {"runtimeClass": "nvidia"}}}}, "runtimeClass"),
        ({"worker": {"pools": {"GPU": {}}}}, "GPU"),
        ({"app": {"replicas": "two"}}, "replicas"),
        ({"image": {"tag": "latest"}}, "tag"),
        ({"app": {"image": {"tag": "latest"}}}, "tag"),
        ({"models": {"image": {"reference": "models:latest"}}}, "reference"),
        ({"models": {"image": {"reference": "registry:5000/models"}}}, "reference"),
        ({"settings": {"FORETELL_DATABASE_URL": "postgresql://ada:secret@db/foretell"}}, "FORETELL_DATABASE_URL"),
        ({"app": {"settings": {"foretell_log_level": "debug"}}}, "foretell_log_level"),
        ({"environment": "staging"}, "environment"),
        ({"postgresql": {"mode": "internal"}}, "mode"),
        ({"rabbitmq": {"operator": {"replicas": 2}}}, "replicas"),
        ({"httpRoute": {"enabled": True}}, "parentRefs"),
        ({"bot": {"webhookUrl": "http://foretell.example.com/telegram/webhook"}}, "webhookUrl"),
        ({"networkPolicy": {"appClients": [{"namespaceSelektor": {}}]}}, "namespaceSelektor"),
        ({"fullnameOverride": "a" * 37}, "fullnameOverride"),
    ],
)
def test_values_that_mean_nothing_are_refused(values: dict[str, Any], named: str) -> None:
    assert named in refusal(values)


def test_what_is_missing_is_said() -> None:
    assert "bot.token.existingSecret" in refusal({"bot": {"enabled": True}})
    assert "autoscaling.prometheusUrl" in refusal({"worker": {"autoscaling": {"enabled": True}}})
    assert "models.existingClaim" in refusal({"models": {"uploads": True}})
    assert "modelService.enabled" in refusal(merged(UPLOADS, {"modelService": {"enabled": False}}))


# What every pod may do.


@combinations
def test_every_container_keeps_to_the_restricted_standard(values: dict[str, Any]) -> None:
    workloads = [each for each in render(values) if each["kind"] in WORKLOADS]
    assert len(workloads) >= 4
    for manifest in workloads:
        spec = pod_template(manifest)["spec"]
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for forbidden in ("hostNetwork", "hostPID", "hostIPC", "hostUsers"):
            assert not spec.get(forbidden)
        assert {kind for volume in spec.get("volumes", []) for kind in volume} <= {
            "name",
            "emptyDir",
            "persistentVolumeClaim",
        }
        for container in containers(manifest):
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False
            assert own["readOnlyRootFilesystem"] is True
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert "privileged" not in own
            assert not any("hostPort" in port for port in container.get("ports", []))
            assert not container["image"].endswith(":latest")
            assert re.search(r":[^/]+$|@sha256:", container["image"])
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]


def test_whose_cluster_chooses_users_itself_can_say_so() -> None:
    values = {"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}}
    for manifest in (each for each in render(values) if each["kind"] in WORKLOADS):
        security = pod_template(manifest)["spec"]["securityContext"]
        assert security.keys() == {"runAsNonRoot", "fsGroupChangePolicy", "seccompProfile"}


@combinations
def test_no_pod_has_a_token_or_variables_of_services(values: dict[str, Any]) -> None:
    for manifest in (each for each in render(values) if each["kind"] in WORKLOADS):
        spec = pod_template(manifest)["spec"]
        assert spec["automountServiceAccountToken"] is False
        # FORETELL_APP_PORT=tcp://10.0.0.1:8000 would be taken for the setting of that name.
        assert spec["enableServiceLinks"] is False


@combinations
def test_every_deployment_has_probes_a_budget_and_time_to_stop(values: dict[str, Any]) -> None:
    manifests = render(values)
    budgets = of_kind(manifests, "PodDisruptionBudget")
    for name, deployment in of_kind(manifests, "Deployment").items():
        budget = budgets.pop(name)["spec"]
        assert budget["selector"] == deployment["spec"]["selector"]
        assert len(budget.keys() & {"minAvailable", "maxUnavailable"}) == 1
        spec = pod_template(deployment)["spec"]
        (container,) = spec["containers"]
        # A broker or database that is away keeps a pod from being ready, and gets no pod killed.
        assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
        assert container["startupProbe"]["httpGet"]["path"] == "/health/live"
        assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
        pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        grace = int(environment(deployment)["FORETELL_STOP_GRACE_S"])
        # After its grace period and eight seconds more a service ends itself.
        assert spec["terminationGracePeriodSeconds"] >= pause + grace + 8
        assert spec["topologySpreadConstraints"]
    assert not budgets


@combinations
def test_who_is_asked_goes_on_for_a_while_when_told_to_stop(values: dict[str, Any]) -> None:
    for deployment in of_kind(render(values), "Deployment").values():
        if component_of(deployment) in ("app", "model-service", "preprocessing-service"):
            (container,) = pod_template(deployment)["spec"]["containers"]
            assert 10 <= container["lifecycle"]["preStop"]["sleep"]["seconds"] <= 30


def test_selectors_never_change() -> None:
    newer = merged(EVERYTHING, {"image": {"tag": "9.9.9"}, "commonLabels": {"team": "new"}})
    before, after = of_kind(render(), "Deployment"), of_kind(render(newer, upgrade=True), "Deployment")
    assert before.keys() <= after.keys()
    for name, deployment in before.items():
        selector = deployment["spec"]["selector"]
        assert selector == after[name]["spec"]["selector"]
        labels = pod_template(deployment)["metadata"]["labels"]
        assert selector["matchLabels"].items() <= labels.items()
        assert "0.1.0" not in str(selector)


@combinations
def test_selectors_choose_one_deployment(values: dict[str, Any]) -> None:
    manifests = render(values)
    deployments = of_kind(manifests, "Deployment")
    for service in of_kind(manifests, "Service").values():
        chosen = [
            name
            for name, deployment in deployments.items()
            if service["spec"]["selector"].items() <= pod_template(deployment)["metadata"]["labels"].items()
        ]
        assert chosen == [service["metadata"]["name"]]


@combinations
def test_what_is_scaled_says_no_number_itself(values: dict[str, Any]) -> None:
    manifests = render(values)
    targets = [
        scaler["spec"]["scaleTargetRef"]["name"]
        for scaler in manifests
        if scaler["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")
    ]
    assert len(targets) == len(set(targets))
    for name, deployment in of_kind(manifests, "Deployment").items():
        assert ("replicas" in deployment["spec"]) == (name not in targets)


# What runs.


def test_commands_and_services_are_ours() -> None:
    commands = get_command(command_line)
    names = {service.name: service.compose_name or service.name for service in SERVICES}
    served = {}
    for manifest in (each for each in render(EVERYTHING) if each["kind"] in ("Deployment", "Job")):
        (container,) = pod_template(manifest)["spec"]["containers"]
        program, command, *arguments = container["command"]
        assert program == "foretell"
        assert command in commands.list_commands(None)  # type: ignore[attr-defined, arg-type]
        if command == "serve":
            served[arguments[0]] = container["name"]
    assert served == names


def test_services_are_on_the_ports_that_are_promised() -> None:
    promised = {service.compose_name or service.name: service.port for service in SERVICES if service.port}
    found = {
        name.removeprefix("foretell-"): service["spec"]["ports"][0]["port"]
        for name, service in of_kind(render(BOT), "Service").items()
    }
    assert promised.items() <= found.items()
    for name, deployment in of_kind(render(BOT), "Deployment").items():
        assert environment(deployment)["FORETELL_PORT"] == str(found[name.removeprefix("foretell-")])


def test_numbers_are_written_as_numbers() -> None:
    values = {"settings": {"FORETELL_MONITORING_MAX_BYTES": 2147483648, "FORETELL_PUBLISH_AFTER_S": 0.5}}
    given = environment(of_kind(render(values), "Deployment")["foretell-dispatcher"])
    assert given["FORETELL_MONITORING_MAX_BYTES"] == "2147483648"
    assert given["FORETELL_PUBLISH_AFTER_S"] == "0.5"


def test_a_service_s_own_settings_count_more() -> None:
    values = {"settings": {"FORETELL_LOG_LEVEL": "warning"}, "app": {"settings": {"FORETELL_LOG_LEVEL": "debug"}}}
    deployments = of_kind(render(values), "Deployment")
    assert environment(deployments["foretell-app"])["FORETELL_LOG_LEVEL"] == "debug"
    assert environment(deployments["foretell-dispatcher"])["FORETELL_LOG_LEVEL"] == "warning"


def test_a_pool_takes_its_own_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = render(SCALING)
    deployments = of_kind(manifests, "Deployment")
    gpu = deployments["foretell-ml-worker-gpu"]
    assert next(containers(gpu))["resources"]["limits"] == {"memory": "1Gi", "nvidia.com/gpu": 1}
    for name, pool in (("foretell-ml-worker", ""), ("foretell-ml-worker-gpu", "gpu")):
        given = environment(deployments[name]).get("FORETELL_WORKER_POOL", "")
        assert given == pool == WorkerSettings(worker_pool=given).worker_pool
        for trigger in of_kind(manifests, "ScaledObject")[name]["spec"]["triggers"]:
            assert f'queue="{tasks_queue(pool or None)}"' in trigger["metadata"]["query"]
    # What the dispatcher makes of it.
    given = environment(deployments["foretell-dispatcher"])["FORETELL_WORKER_POOLS"]
    monkeypatch.setenv("FORETELL_WORKER_POOLS", given)
    assert DispatcherSettings().worker_pools == ("gpu",)


def test_workers_are_scaled_on_figures_that_there_are() -> None:
    shown = {dispatcher_measures.OLDEST_TASK_AGE_S, dispatcher_measures.QUEUE_PREDICTIONS}
    names = {table._gauge._name for table in shown}
    scaler = of_kind(render(SCALING), "ScaledObject")["foretell-ml-worker"]["spec"]
    asked = [trigger["metadata"]["query"] for trigger in scaler["triggers"]]
    assert {re.fullmatch(r"max\((\w+)\{.*\}\)", query)[1] for query in asked} == names  # type: ignore[index]
    assert all(f'namespace="{NAMESPACE}"' in query for query in asked)
    # Nothing known is no reason to have nobody: then the fallback counts.
    assert all(trigger["metadata"]["ignoreNullValues"] == "false" for trigger in scaler["triggers"])
    assert scaler["minReplicaCount"] == 0
    assert scaler["fallback"]["replicas"] > 0


def test_a_pool_can_be_switched_off() -> None:
    deployments = of_kind(render({"worker": {"pools": {"common": None, "gpu": {"replicas": 1}}}}), "Deployment")
    assert "foretell-ml-worker" not in deployments
    assert deployments["foretell-ml-worker-gpu"]["spec"]["replicas"] == 1


@pytest.mark.parametrize("component", ["bot", "monitoring-service"])
def test_of_some_there_is_one_and_never_two(component: str) -> None:
    spec = of_kind(render(EVERYTHING), "Deployment")[f"foretell-{component}"]["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}
    claims = [volume.get("persistentVolumeClaim") for volume in spec["template"]["spec"]["volumes"]]
    assert {"claimName": f"foretell-{component}"} in claims
    claim = of_kind(render(EVERYTHING), "PersistentVolumeClaim")[f"foretell-{component}"]
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_migrations_run_when_there_is_a_database() -> None:
    before = of_kind(render(), "Job")["foretell-migrations"]
    assert before["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    operated = of_kind(render(OPERATORS, upgrade=True), "Job")["foretell-migrations"]
    assert operated["metadata"]["annotations"]["helm.sh/hook"] == "pre-upgrade"
    # The image of the app alone has what it takes.
    assert next(containers(before))["image"] == "foretell/app:0.1.0"
    # A hook before the install can use nothing that the chart makes.
    assert pod_template(before)["spec"]["serviceAccountName"] == "default"
    assert "foretell-secrets" not in str(before)
    assert not of_kind(render({"migrations": {"enabled": False}}), "Job")


def test_secrets_are_new_in_each_installation_and_none_stands_in_a_manifest() -> None:
    first = of_kind(render(), "Secret")["foretell-secrets"]
    second = of_kind(render(name="other"), "Secret")["other-foretell-secrets"]
    assert first["data"].keys() == {"secret-key", "monitoring-token", "admin-token", "bot-secret"}
    assert not set(first["data"].values()) & set(second["data"].values())
    assert first["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    for manifest in (each for each in render(EVERYTHING) if each["kind"] in ("Deployment", "Job")):
        for name, value in environment(manifest).items():
            if re.search(r"SECRET|TOKEN|PASSWORD|DATABASE_URL", name) and "sqlite" not in str(value):
                assert "secretKeyRef" in value, name
    assert not of_kind(render({"secrets": {"existingSecret": "given"}}), "Secret")


def test_notes_say_what_comes_next() -> None:
    assert "foretell-database" in notes()
    assert "users add" in notes()
    assert "trustedProxies" in notes({"ingress": {"enabled": True}})
    assert "port-forward" not in notes({"ingress": {"enabled": True}})
    assert "test can log in" in notes({"environment": "development"})
    assert "metricsClients" in notes({"metrics": {"serviceMonitor": {"enabled": True}}})
    assert "foretell-database" not in notes(OPERATORS)


def _documented() -> dict[str, dict[str, Any]]:
    """The values of every example in the chart's pages: each YAML block, and each command with its `--set`."""
    found: dict[str, dict[str, Any]] = {}
    for page in (CHART.parents[2] / "docs" / "kubernetes.md", CHART / "README.md"):
        text = page.read_text(encoding="utf-8")
        blocks = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]
        commands = [
            re.findall(r"--set ([\w.]+)=([^\s`]+)", part) for part in re.findall(r"(?:--set \S+[ \\\n]*)+", text)
        ]
        for settings in commands:
            values: dict[str, Any] = {}
            for path, value in settings:
                part: dict[str, Any] = yaml.safe_load(value)
                for key in reversed(path.split(".")):
                    part = {key: part}
                values = merged(values, part)
            blocks.append(values)
        found |= {f"{page.name} {number}": values for number, values in enumerate(blocks)}
    return found


@pytest.mark.parametrize("values", _documented().values(), ids=_documented())
def test_kubernetes_takes_what_the_pages_show(values: dict[str, Any], strict: Any) -> None:
    assert values
    for manifest in render(values):
        if manifest["apiVersion"].split("/")[0] not in CUSTOM:
            assert strict(manifest) == [], (manifest["kind"], manifest["metadata"]["name"])
