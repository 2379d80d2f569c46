"""What we send, verified by the package that receivers in JavaScript use."""

import json
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest
from tests.services_database import missing

from foretell.contracts import http
from foretell.domain.notifications.endpoints import shown_secret
from foretell.kit.clock import now, uuid7
from foretell.services.dispatcher.notifying.messages import encoded, headers

_SECRETS = (b"the newer secret of the webhook ", b"the older secret of the webhook ")
_VERIFY = """
const { Webhook } = require("standardwebhooks");
const given = JSON.parse(require("fs").readFileSync(0, "utf8"));
const said = given.secrets.map((secret) => {
  try { return new Webhook(secret).verify(given.body, given.headers).data.word; } catch (error) { return error.name; }
});
console.log(JSON.stringify(said));
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which Node finds the package `standardwebhooks`."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        missing("This test needs node and npm on the PATH.")
    folder = tmp_path_factory.mktemp("javascript")
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), "standardwebhooks"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=folder)
    except subprocess.TimeoutExpired:
        missing("npm did not get the package standardwebhooks within two minutes.")
    if done.returncode != 0:
        missing(f"npm could not get the package standardwebhooks: {done.stderr[-300:]}")
    return folder


def test_javascript_verifies_it(package: Path) -> None:
    data = msgspec.Raw('{"word": "Привет, \\u2028 \U0001f600"}'.encode())
    event = http.Event(id=uuid7(), type="prediction.finished", timestamp=now(), sequence=1, data=data)
    body = encoded(event).body
    given = {
        "body": body.decode(),
        "headers": dict(headers(event, body, _SECRETS, now())),
        "secrets": [shown_secret(secret) for secret in (*_SECRETS, b"a secret that nobody has ever had")],
    }
    done = subprocess.run(
        ["node", "-e", _VERIFY], input=json.dumps(given), capture_output=True, text=True, check=False, cwd=package
    )
    assert done.returncode == 0, done.stderr
    word = json.loads(bytes(data))["word"]
    first, second, third = json.loads(done.stdout)
    assert (first, second) == (word, word)
    assert third not in (word, "TypeError")
