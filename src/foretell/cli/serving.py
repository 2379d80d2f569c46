"""`foretell serve NAME`."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

from pydantic import ValidationError

from foretell.contracts.bot_secret import new_bot_secret
from foretell.kit.errors import Misconfigured
from foretell.local.services import Service, find, runnable


def serve_in_foreground(name: str) -> None:
    """Run a service until it is stopped. Raises `UnknownService`, `NotInThisRelease`, `Misconfigured`."""
    service = find(name)
    with _refusals_explained(), _port_for(service):
        _imported(service.module).main()


def _imported(module: str) -> ModuleType:
    """Import a service without garbage collection, which takes a quarter of the time and finds almost nothing."""
    gc.disable()
    try:
        return import_module(module)
    finally:
        # What was imported stays, so no later collection needs to look at it.
        gc.freeze()
        gc.enable()


def check_settings() -> None:
    """Raises `Misconfigured` for settings that a service would refuse, before any service is started."""
    services, _ = runnable()
    for service in services:
        settings = import_module(f"{service.module.rpartition('.')[0]}.settings")
        # The start generates one.
        with _refusals_explained(), _set_meanwhile("FORETELL_BOT_SECRET", new_bot_secret()):
            getattr(settings, f"{service.name.capitalize()}Settings")()


@contextmanager
def _refusals_explained() -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        # Without the value, which may be a secret.
        wrong = "; ".join(
            f"FORETELL_{'_'.join(map(str, each['loc'])).upper()}: {each['msg']}" for each in error.errors()
        )
        raise Misconfigured(f"The settings do not allow a start. {wrong}") from None


@contextmanager
def _port_for(service: Service) -> Iterator[None]:
    """Set the port of this service in the environment for its settings, while it runs."""
    with _set_meanwhile("FORETELL_PORT", str(service.port_from(os.environ))):
        yield


@contextmanager
def _set_meanwhile(name: str, value: str) -> Iterator[None]:
    """Set an environment variable inside, unless it is already set."""
    before = os.environ.get(name)
    if before:
        yield
        return
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before
