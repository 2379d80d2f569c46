"""Values with which the chart is tried."""

from typing import Any

Values = dict[str, Any]

OPERATORS: Values = {
    "postgresql": {"mode": "cloudnativepg", "cloudnativepg": {"parameters": {"max_connections": "300"}}},
    "rabbitmq": {"mode": "operator", "operator": {"image": "rabbitmq:4.1-management"}},
}
BOT: Values = {
    "bot": {
        "enabled": True,
        "token": {"existingSecret": "telegram"},
        "webhookUrl": "https://foretell.example.com/telegram/webhook",
    }
}
SCALING: Values = {
    "autoscaling": {"prometheusUrl": "http://prometheus-operated.monitoring:9090", "authenticationRef": "prometheus"},
    "app": {"autoscaling": {"enabled": True}},
    "modelService": {"autoscaling": {"enabled": True, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}}}},
    "worker": {
        "autoscaling": {"enabled": True},
        "pools": {
            "gpu": {
                "resources": {"limits": {"nvidia.com/gpu": 1}},
                "runtimeClassName": "nvidia",
                "image": {"repository": "registry.example.com/gpu", "digest": "sha256:" + "0" * 64},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
                "autoscaling": {"maxReplicas": 2, "waitSeconds": 120},
                "strategy": {"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
            }
        },
    },
}
WATCHED: Values = {
    "metrics": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True},
        "dashboards": {"enabled": True, "annotations": {"grafana_folder": "Foretell"}},
    },
    "networkPolicy": {"metricsClients": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]},
    "monitoringService": {"persistence": {"enabled": True, "storageClass": "fast"}},
}
OUTSIDE: Values = {
    "ingress": {"enabled": True, "className": "traefik", "tls": [{"secretName": "tls", "hosts": ["a.example.com"]}]},
    "httpRoute": {"enabled": True, "parentRefs": [{"name": "public", "namespace": "gateways"}]},
    "app": {"trustedProxies": ["10.0.0.0/8", "fd00::/8"]},
    "dispatcher": {"webhookAllowedNetworks": ["10.1.0.0/16"]},
    "networkPolicy": {"appClients": [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}]},
}
PICKY: Values = {
    "commonLabels": {"team": "ml"},
    "image": {"registry": "registry.example.com/team", "tag": "0.1.0-3", "pullSecrets": [{"name": "registry"}]},
    "settings": {"FORETELL_LOG_LEVEL": "debug", "FORETELL_REGISTRATION_OPEN": False},
    "models": {"image": {"reference": "registry.example.com/models:7"}},
    "modelService": {"enabled": False},
    "preprocessingService": {"enabled": False},
    "monitoringService": {"enabled": False},
    "app": {
        "podDisruptionBudget": {"minAvailable": "50%"},
        "strategy": {"type": "Recreate"},
        "affinity": {"podAntiAffinity": {}},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}
        ],
        "priorityClassName": "high",
        "nodeSelector": {"disk": "fast"},
        "podLabels": {"a": "b"},
        "podAnnotations": {"c": "d"},
        "extraEnv": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
    },
    "serviceAccount": {"create": False, "name": "given"},
    "secrets": {"existingSecret": "given-secrets"},
    "tests": {"enabled": False},
}
UPLOADS: Values = {"models": {"existingClaim": "models", "uploads": True}}


def merged(*parts: Values) -> Values:
    """All of them in one, the later ones over the earlier ones."""
    whole: Values = {}
    for part in parts:
        for key, value in part.items():
            before = whole.get(key)
            whole[key] = merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return whole


EVERYTHING = merged(
    OPERATORS, BOT, SCALING, WATCHED, OUTSIDE, {"models": {"image": {"reference": "registry.example.com/models:7"}}}
)
#: Each is rendered and checked in every way.
COMBINATIONS: dict[str, Values] = {
    "default": {},
    "operators": OPERATORS,
    "bot": BOT,
    "scaling": SCALING,
    "watched": WATCHED,
    "outside": OUTSIDE,
    "picky": PICKY,
    "claim": {"models": {"existingClaim": "models"}, "networkPolicy": {"enabled": False}},
    "uploads": UPLOADS,
    "everything": EVERYTHING,
}
