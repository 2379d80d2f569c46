"""The health check of every image: ends with 0 while the service can serve, and says what is wrong with it.

Standard library only, and little of it: it is started four times a minute in every container. What does not keep a
service from serving (the broker is away, say, while submissions wait in the database) is said, and is no failure.
"""

import json
import os
import socket
import sys

_TIMEOUT_S = 4.0
_MOST_BYTES = 64 * 1024


def ask(path: str, port: int) -> tuple[int, dict[str, object]]:
    """Status and body of what the service on this port answers. Raises `OSError`, `ValueError`."""
    with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while len(answer) < _MOST_BYTES and (part := connection.recv(_MOST_BYTES)):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    said = json.loads(body)
    return int(head.split(b" ", 2)[1]), said if isinstance(said, dict) else {}


def main() -> int:
    """Ask, print in one line what fails, and return the exit status."""
    try:
        port = int(os.environ["FORETELL_PORT"])
        ready, _ = ask("/health/ready", port)
        status, said = ask("/health", port)
    except (OSError, ValueError, IndexError, KeyError) as error:
        print(f"no answer: {error}")
        return 1
    failing = said.get("failing")
    if isinstance(failing, dict) and failing:
        print("; ".join(f"{part}: {why}" for part, why in failing.items()))
    else:
        print(said.get("status", status))
    return 0 if ready == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
