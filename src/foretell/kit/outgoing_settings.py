"""Settings of services that send requests to addresses given by users."""

import ipaddress
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

from foretell.kit.addresses import Addresses
from foretell.kit.settings import ServiceSettings


def _split(value: Any) -> Any:
    """`a, b` from the environment as a list; a list as it is."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class OutgoingSettings(ServiceSettings):
    """What may be reached on behalf of a stranger."""

    #: Private networks, separated by commas, in which webhooks are allowed, also without TLS.
    webhook_allowed_networks: Annotated[
        tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...], NoDecode, BeforeValidator(_split)
    ] = ()

    def addresses(self) -> Addresses:
        """The allowed addresses. In production, those on the internet need TLS."""
        return Addresses(self.webhook_allowed_networks, needs_tls=self.production)
