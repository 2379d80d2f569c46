"""Gives Kibana the data view and the saved views of view.ndjson, once it answers: kibana-view of docker-compose.yaml.

Standard library only. The objects have ids of their own, so that loading them again changes nothing but them.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

_BOUNDARY = "foretell-view"
_RETRY_S = 2.0


def load(url: str, objects: bytes) -> dict[str, object]:
    """Import the objects into the Kibana at `url`; what it answers. Raises `OSError`, `ValueError`."""
    body = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="view.ndjson"\r\n'
        "Content-Type: application/x-ndjson\r\n\r\n"
    ).encode()
    request = urllib.request.Request(  # noqa: S310 - the operator's own Kibana
        f"{url}/api/saved_objects/_import?overwrite=true",
        data=body + objects + f"\r\n--{_BOUNDARY}--\r\n".encode(),
        headers={"kbn-xsrf": "foretell", "Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        said = json.load(answer)
    return said if isinstance(said, dict) else {}


def main(wait_s: float) -> int:
    """Load them, waiting for a Kibana that is not there yet; the exit status."""
    url = os.environ.get("KIBANA_URL", "http://kibana:5601")
    objects = (Path(__file__).parent / "view.ndjson").read_bytes()
    deadline = time.monotonic() + wait_s
    while True:
        try:
            said = load(url, objects)
        except (OSError, ValueError) as error:
            if time.monotonic() > deadline:
                print(f"Kibana ({url}) does not take the views: {error}")
                return 1
            time.sleep(_RETRY_S)
            continue
        if said.get("success"):
            print(f"Kibana has {said.get('successCount')} objects.")
            return 0
        print(f"Kibana refuses the views: {json.dumps(said)[:500]}")
        return 1


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 300.0))
