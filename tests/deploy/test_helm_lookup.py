"""What the chart makes of what is in the cluster: secrets stay, and nothing waits for what nobody has made."""

import json
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import yaml
from tests.deploy.chart import CHART, NAMESPACE, Manifest, Values, helm, of_kind
from tests.deploy.charted import OPERATORS

from foretell.contracts.bot_secret import bot_secret_key

_KINDS = {
    "kind": "APIResourceList",
    "apiVersion": "v1",
    "groupVersion": "v1",
    "resources": [
        {"name": "namespaces", "singularName": "namespace", "namespaced": False, "kind": "Namespace", "verbs": ["get"]},
        {"name": "secrets", "singularName": "secret", "namespaced": True, "kind": "Secret", "verbs": ["get"]},
    ],
}
_NOT_THERE = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}


@contextmanager
def _cluster(secrets: dict[str, dict[str, str]]) -> Iterator[str]:
    """The address of an API server that has a namespace with these Secrets, and knows nothing else."""
    here: dict[str, Any] = {"/api/v1": _KINDS, "/apis": {"kind": "APIGroupList", "groups": []}}
    here["/api"] = {"kind": "APIVersions", "versions": ["v1"]}
    here["/version"] = {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}
    place = f"/api/v1/namespaces/{NAMESPACE}"
    here[place] = {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": NAMESPACE}}
    for name, data in secrets.items():
        metadata = {"name": name, "namespace": NAMESPACE}
        here[f"{place}/secrets/{name}"] = {"kind": "Secret", "apiVersion": "v1", "metadata": metadata, "data": data}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = here.get(self.path.partition("?")[0].rstrip("/"))
            body = json.dumps(_NOT_THERE if found is None else found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def _upgraded(address: str, values: Values) -> list[Manifest]:
    """What an upgrade would send to that cluster."""
    cluster = {"cluster": {"server": address}, "name": "here"}
    context = {"context": {"cluster": "here", "user": "me"}, "name": "here"}
    content = {"kind": "Config", "apiVersion": "v1", "current-context": "here", "clusters": [cluster]}
    content |= {"contexts": [context], "users": [{"name": "me", "user": {}}]}  # type: ignore[dict-item]
    with (
        helm().Config(kubeconfig_content=json.dumps(content), namespace=NAMESPACE) as configuration,
        helm().Chart.load(CHART) as chart,
    ):
        texts = configuration.render(chart, dict(values), name="foretell", namespace=NAMESPACE, is_upgrade=True)
    found = [text for path, text in texts.items() if not path.endswith("NOTES.txt")]
    return [each for text in found for each in yaml.load_all(text, yaml.CSafeLoader) if each]


def test_secrets_stay_over_an_upgrade_and_one_that_is_new_is_made() -> None:
    kept = {"secret-key": "b2xk", "monitoring-token": "b2xkZXI="}
    with _cluster({"foretell-secrets": kept}) as address:
        data = of_kind(_upgraded(address, {}), "Secret")["foretell-secrets"]["data"]
    assert kept.items() <= data.items()
    assert bot_secret_key(b64decode(data["bot-secret"]).decode())


def test_the_tables_wait_for_a_database_that_an_operator_has_not_made() -> None:
    """After an install that got nowhere, a Job before the upgrade would wait for what comes with the upgrade."""
    with _cluster({}) as address:
        assert not of_kind(_upgraded(address, OPERATORS), "Job")
        # One of ours is there or is missing, and either is the operator's to see.
        assert of_kind(_upgraded(address, {}), "Job")
    with _cluster({"foretell-postgres-app": {"uri": "eA=="}}) as address:
        assert of_kind(_upgraded(address, OPERATORS), "Job")
