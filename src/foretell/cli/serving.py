"""`foretell serve NAME`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from pydantic import ValidationError

from foretell.kit.errors import Misconfigured
from foretell.local.services import Service, find


def serve_in_foreground(name: str) -> None:
    """Run a service until it is told to stop. Raises `UnknownService`, `NotInThisRelease`, `Misconfigured`."""
    service = find(name)
    try:
        with _port_for(service):
            import_module(service.module).main()
    except ValidationError as error:
        # Never the value: it may be a secret.
        wrong = "; ".join(
            f"FORETELL_{'_'.join(map(str, each['loc'])).upper()}: {each['msg']}" for each in error.errors()
        )
        raise Misconfigured(f"The settings do not allow a start. {wrong}") from None


@contextmanager
def _port_for(service: Service) -> Iterator[None]:
    """The port of this service where its settings look for one, for as long as it runs."""
    before = os.environ.get("FORETELL_PORT")
    if before:
        yield
        return
    os.environ["FORETELL_PORT"] = str(service.port_from(os.environ))
    try:
        yield
    finally:
        del os.environ["FORETELL_PORT"]
        if before is not None:
            os.environ["FORETELL_PORT"] = before
