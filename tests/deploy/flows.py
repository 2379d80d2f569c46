"""What NetworkPolicies allow, decided as Kubernetes does: all that select a pod are added up."""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tests.deploy.chart import NAMESPACE, Manifest


@dataclass(frozen=True)
class Place:
    """A pod by its labels, or an address outside."""

    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: Mapping[str, str] = field(default_factory=lambda: {"kubernetes.io/metadata.name": NAMESPACE})
    address: str = ""


def allowed(policies: Iterable[Manifest], source: Place, target: Place, port: int, protocol: str = "TCP") -> bool:
    """Whether `source` may connect to that port of `target`: the one must let it go and the other let it come."""
    found = list(policies)
    return _one_way(found, source, target, port, protocol, "Egress") and _one_way(
        found, target, source, port, protocol, "Ingress"
    )


def _one_way(policies: list[Manifest], here: Place, there: Place, port: int, protocol: str, direction: str) -> bool:
    if here.address:
        return True
    mine = [
        policy["spec"]
        for policy in policies
        if direction in policy["spec"]["policyTypes"] and _matches(policy["spec"]["podSelector"], here.labels)
    ]
    if not mine:
        return True
    peers = "to" if direction == "Egress" else "from"
    return any(
        _port_fits(rule.get("ports"), port, protocol)
        and (not rule.get(peers) or any(_is(peer, there) for peer in rule[peers]))
        for policy in mine
        for rule in policy.get(direction.lower(), [])
    )


def _port_fits(ports: list[Manifest] | None, port: int, protocol: str) -> bool:
    return not ports or any(
        each.get("protocol", "TCP") == protocol and each.get("port", port) in (port, "http") for each in ports
    )


def _is(peer: Manifest, there: Place) -> bool:
    if "ipBlock" in peer:
        if not there.address:
            return False
        address = ipaddress.ip_address(there.address)
        inside = address in ipaddress.ip_network(peer["ipBlock"]["cidr"])
        return inside and not any(address in ipaddress.ip_network(each) for each in peer["ipBlock"].get("except", []))
    if there.address:
        return False
    own_namespace = there.namespace == {"kubernetes.io/metadata.name": NAMESPACE}
    if not (_matches(peer["namespaceSelector"], there.namespace) if "namespaceSelector" in peer else own_namespace):
        return False
    return "podSelector" not in peer or _matches(peer["podSelector"], there.labels)


def _matches(selector: Manifest, labels: Mapping[str, str]) -> bool:
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "Exists", "what the chart has no use for"
        if expression["key"] not in labels:
            return False
    return True
