import os
import socket
from collections.abc import Iterator

import pytest

from foretell.local import ports


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_a_taken_port_is_refused_with_its_holder_and_the_way_out(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with pytest.raises(ports.PortTaken) as caught:
        ports.check_free("127.0.0.1", port, "FORETELL_APP_PORT")
    assert f"Port {port} is taken" in caught.value.message
    assert f"(pid {os.getpid()})" in caught.value.message
    assert "FORETELL_APP_PORT=" in caught.value.message


def test_a_port_that_was_given_back_is_free(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    # A connection that lingers must not look like a listener.
    with socket.create_connection(("127.0.0.1", port)):
        listener.accept()[0].close()
    listener.close()
    ports.check_free("127.0.0.1", port, "FORETELL_APP_PORT")


def test_an_address_that_is_not_ours_is_refused() -> None:
    with pytest.raises(ports.PortForbidden, match=r"203\.0\.113\.1"):
        ports.check_free("203.0.113.1", 18000, "FORETELL_APP_PORT")


def test_free_ports_avoid_what_they_are_told_to() -> None:
    assert 20_000 <= ports.free_port("127.0.0.1", ()) <= 32_000
    with pytest.raises(ports.NoFreePort):
        ports.free_port("127.0.0.1", range(20_000, 32_001))
