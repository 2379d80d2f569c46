"""What the chart makes for others to read: KEDA, the Gateway API, Prometheus, Grafana, the operators of databases."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.deploy.chart import Manifest, environment, of_kind, render
from tests.deploy.charted import EVERYTHING, OPERATORS, OUTSIDE, SCALING, WATCHED, merged
from tests.deployed import DASHBOARDS, PROMETHEUS
from tests.services_database import missing

from foretell.broker.rabbitmq_address import addresses

_PACKAGES = (
    "@kubernetes-models/keda@2.0.0",
    "@kubernetes-models/gateway-api@2.0.0",
    "@kubernetes-models/prometheus-operator@6.0.0",
)
#: These packages check what they know, and let pass what they don't. A key that was never looked at is one of these.
_CHECK = """
import { readFileSync } from "fs";
const given = JSON.parse(readFileSync(0, "utf8"));
const said = [];
for (const { module, manifest } of given) {
  const { default: _, ...kinds } = await import(module);
  const seen = new Set();
  const watch = (value, path) => value === null || typeof value !== "object" ? value : new Proxy(value, {
    get: (target, key) => {
      if (typeof key === "symbol") return target[key];
      seen.add(path + "/" + key);
      return watch(target[key], path + "/" + key);
    },
  });
  const errors = [];
  const check = kinds.validate;
  if (!check(watch(manifest, ""))) errors.push(...check.errors.map((error) => error.instancePath + error.schemaPath));
  const walk = (value, path) => {
    if (value === null || typeof value !== "object") return;
    for (const key of Object.keys(value)) {
      const here = path + "/" + key;
      if (path === "" && ["apiVersion", "kind", "metadata"].includes(key)) continue;
      if (!Array.isArray(value) && !seen.has(here)) errors.push(here + " is unknown");
      else walk(value[key], here);
    }
  };
  walk(manifest, "");
  said.push(errors);
}
console.log(JSON.stringify(said));
"""
_KEDA = "ComGithubKedacoreKedaV2ApisKedaV1alpha1"
_PROMETHEUS = "ComGithubPrometheusOperatorPrometheusOperatorPkgApisMonitoringV1"
_SCHEMAS = {
    "ScaledObject": ("keda", f"{_KEDA}ScaledObject"),
    "HTTPRoute": ("gateway-api", "IoK8sSigsGatewayApiApisV1HTTPRoute"),
    "ServiceMonitor": ("prometheus-operator", f"{_PROMETHEUS}ServiceMonitor"),
    "PrometheusRule": ("prometheus-operator", f"{_PROMETHEUS}PrometheusRule"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which Node finds what others' kinds look like."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        missing("This test needs node and npm on the PATH.")
    folder = tmp_path_factory.mktemp("models")
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), *_PACKAGES]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180, cwd=folder)
    except subprocess.TimeoutExpired:
        missing("npm did not get the models of Kubernetes' kinds within three minutes.")
    if done.returncode != 0:
        missing(f"npm could not get the models of Kubernetes' kinds: {done.stderr[-300:]}")
    return folder


def _check(models: Path, manifests: list[Manifest]) -> list[list[str]]:
    given = []
    for manifest in manifests:
        package, schema = _SCHEMAS[manifest["kind"]]
        place = models / "node_modules" / "@kubernetes-models" / package / "_schemas" / f"{schema}.js"
        given.append({"module": place.as_uri(), "manifest": manifest})
    script = models / "check.mjs"
    script.write_text(_CHECK)
    done = subprocess.run(
        ["node", script], input=json.dumps(given), capture_output=True, text=True, check=False, cwd=models
    )
    assert done.returncode == 0, done.stderr
    said: list[list[str]] = json.loads(done.stdout)
    return said


def test_others_kinds_are_as_they_say(models: Path) -> None:
    manifests = [each for each in render(EVERYTHING) if each["kind"] in _SCHEMAS]
    assert {each["kind"] for each in manifests} == _SCHEMAS.keys()
    for manifest, errors in zip(manifests, _check(models, manifests), strict=True):
        assert errors == [], (manifest["kind"], manifest["metadata"]["name"])


def test_the_check_finds_what_is_wrong(models: Path) -> None:
    scaled = json.loads(json.dumps(of_kind(render(SCALING), "ScaledObject")["foretell-ml-worker"]))
    scaled["spec"]["minReplicas"] = 1
    scaled["spec"]["fallback"].pop("replicas")
    (errors,) = _check(models, [scaled])
    assert any("minReplicas is unknown" in error for error in errors)
    assert any("required" in error for error in errors)


# Prometheus and Grafana.


def test_alerts_are_those_of_the_product(promtool: Path, tmp_path: Path) -> None:
    rule = of_kind(render(WATCHED), "PrometheusRule")["foretell"]
    assert rule["spec"] == yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())
    file = tmp_path / "alerts.yml"
    file.write_text(yaml.safe_dump(rule["spec"]))
    done = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_dashboards_are_those_of_the_product() -> None:
    made = of_kind(render(WATCHED), "ConfigMap")
    assert len(made) == len(DASHBOARDS) > 0
    for file in DASHBOARDS:
        manifest = made[f"foretell-{file.stem}"]
        assert json.loads(manifest["data"][f"foretell-{file.name}"]) == json.loads(file.read_text())
        assert manifest["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_series_have_the_names_that_rules_and_dashboards_ask_for() -> None:
    (endpoint,) = of_kind(render(WATCHED), "ServiceMonitor")["foretell"]["spec"]["endpoints"]
    labels = {each["targetLabel"]: each for each in endpoint["relabelings"] if "regex" not in each}
    assert labels["job"]["replacement"] == "foretell"
    assert labels["service"]["sourceLabels"] == ["__meta_kubernetes_pod_label_app_kubernetes_io_component"]
    assert endpoint["authorization"]["credentials"] == {"name": "foretell-secrets", "key": "monitoring-token"}
    compose = yaml.safe_load((PROMETHEUS / "prometheus-compose.yml").read_text())["scrape_configs"][0]
    ours, theirs = endpoint["relabelings"][-1], compose["relabel_configs"][-1]
    assert (ours["regex"], ours["replacement"], ours["targetLabel"]) == (
        theirs["regex"],
        theirs["replacement"],
        theirs["target_label"],
    )
    # Every Service of the release has the port by that name.
    for service in of_kind(render(WATCHED), "Service").values():
        assert service["spec"]["ports"][0]["name"] == endpoint["port"] == "http"


@pytest.mark.parametrize(("pool", "waits_s", "queued"), [("", 42, 5000), ("-gpu", 7, 1)])
def test_workers_are_scaled_on_what_prometheus_answers(
    promtool: Path, tmp_path: Path, pool: str, waits_s: int, queued: int
) -> None:
    """Every dispatcher shows the same, other installations something else, and each pool sees its own."""
    age, predictions = "foretell_queue_oldest_task_age_seconds", "foretell_queue_predictions"
    figures = {"ml_tasks": (42, 5000), "ml_tasks.gpu": (7, 1)}
    series = [
        {"series": f'{name}{{namespace="{namespace}",pod="{pod}",queue="{queue}"}}', "values": f"{value}x1"}
        for namespace, pod, more in (("prod", "a", 0), ("prod", "b", 0), ("other", "c", 1000))
        for queue, pair in figures.items()
        for name, value in ((age, pair[0] + more), (predictions, pair[1] + more))
    ]
    triggers = of_kind(render(SCALING), "ScaledObject")[f"foretell-ml-worker{pool}"]["spec"]["triggers"]
    asked = [
        {"expr": each["metadata"]["query"], "eval_time": "1m", "exp_samples": [{"labels": "{}", "value": value}]}
        for each, value in zip(triggers, (waits_s, queued), strict=True)
    ]
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump({"tests": [{"input_series": series, "promql_expr_test": asked}]}))
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# To the outside.


@pytest.mark.parametrize("bot", [False, True])
def test_only_the_app_is_outside_and_the_bot_s_one_path(bot: bool) -> None:
    values: dict[str, Any] = merged(OUTSIDE, EVERYTHING if bot else {})
    manifests = render(values)
    (rule,) = of_kind(manifests, "Ingress")["foretell"]["spec"]["rules"]
    by_ingress = [(path["path"], path["backend"]["service"]["name"]) for path in rule["http"]["paths"]]
    routes = of_kind(manifests, "HTTPRoute")["foretell"]["spec"]["rules"]
    by_route = [(each["matches"][0]["path"]["value"], each["backendRefs"][0]["name"]) for each in routes]
    expected = [("/telegram/webhook", "foretell-bot")] if bot else []
    assert by_ingress == by_route == [*expected, ("/", "foretell-app")]
    # Streams of events have no end.
    assert routes[-1]["timeouts"] == {"request": "0s"}


# Databases and brokers by operators. No package has their schemas, so this is what their documentation says.

_CLUSTER = {
    "apiVersion": "postgresql.cnpg.io/v1",
    "spec": {"instances", "bootstrap", "storage", "resources", "postgresql", "imageName"},
    "postgresql": {"parameters", "synchronous"},
}
_RABBITMQ = {"replicas", "image", "persistence", "resources", "terminationGracePeriodSeconds"}


def test_postgresql_by_its_operator() -> None:
    cluster = of_kind(render(OPERATORS), "Cluster")["foretell-postgres"]
    assert cluster["apiVersion"] == _CLUSTER["apiVersion"]
    assert cluster["spec"].keys() <= _CLUSTER["spec"]
    assert cluster["spec"]["postgresql"]["synchronous"] == {"method": "any", "number": 1, "dataDurability": "required"}
    assert cluster["spec"]["postgresql"]["parameters"] == {"max_connections": "300"}
    assert cluster["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    given = environment(of_kind(render(OPERATORS), "Deployment")["foretell-app"])
    assert given["FORETELL_DATABASE_URL"] == {"secretKeyRef": {"name": "foretell-postgres-app", "key": "uri"}}
    alone = render(merged(OPERATORS, {"postgresql": {"cloudnativepg": {"instances": 1}}}))
    assert "synchronous" not in of_kind(alone, "Cluster")["foretell-postgres"]["spec"]["postgresql"]
    backed = {"postgresql": {"cloudnativepg": {"spec": {"backup": {"retentionPolicy": "30d"}}}}}
    spec = of_kind(render(merged(OPERATORS, backed)), "Cluster")["foretell-postgres"]["spec"]
    assert spec["backup"] == {"retentionPolicy": "30d"}
    assert spec["instances"] == 3


def test_rabbitmq_by_its_operator() -> None:
    cluster = of_kind(render(OPERATORS), "RabbitmqCluster")["foretell-rabbitmq"]
    assert cluster["apiVersion"] == "rabbitmq.com/v1beta1"
    assert cluster["spec"].keys() <= _RABBITMQ
    # Its own default is a week.
    assert cluster["spec"]["terminationGracePeriodSeconds"] <= 600
    given = environment(of_kind(render(OPERATORS), "Deployment")["foretell-ml-worker"])
    names = list(given)
    # Kubernetes replaces only what stands before.
    assert names.index("RABBITMQ_PASSWORD") < names.index("FORETELL_BROKER_URL")
    url = given["FORETELL_BROKER_URL"].replace("$(RABBITMQ_USERNAME)", "ada").replace("$(RABBITMQ_PASSWORD)", "p-w_d")
    hosts = [each.host for each in addresses(url)]
    assert hosts == [f"foretell-rabbitmq-server-{number}.foretell-rabbitmq-nodes.prod" for number in range(3)]
