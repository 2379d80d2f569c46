"""Models in the format of the API."""

import msgspec

from foretell.contracts import http
from foretell.inference.live import LiveRegistry
from foretell.inference.package import ModelPackage
from foretell.inference.quality import quality_of
from foretell.services.app.settings import AppSettings


def price_of(package: ModelPackage, registry: LiveRegistry, settings: AppSettings) -> int:
    """The price of one prediction: from traffic.toml, else the settings, else the manifest."""
    rule = registry.traffic.get(package.name)
    said = None if rule is None else rule.price_credits
    return settings.price_credits_of(package) if said is None else said


def model_of(package: ModelPackage, registry: LiveRegistry, settings: AppSettings) -> http.Model:
    """A model with its schemas."""
    return http.Model(
        name=package.name,
        version=package.version,
        default_version=registry.default_versions[package.name],
        versions=registry.versions(package.name),
        title=http.Words.model_validate(package.title),
        description=http.Words.model_validate(package.description),
        price=price_of(package, registry, settings),
        timeout_s=package.timeout_s,
        fields=msgspec.to_builtins(package.fields),
        input_schema=package.input_schema,
        features_schema=package.features_schema,
        output_schema=package.output_schema,
        labels={value: http.Words.model_validate(words) for value, words in package.labels.items()},
        examples=[http.ModelExample.model_validate(example) for example in package.examples],
        quality=[
            http.Quality(
                name=quality.name,
                value=quality.value,
                title=http.Words.model_validate(quality.measure.title),
                meaning=http.Words.model_validate(quality.measure.meaning),
                better=quality.measure.better,
            )
            for quality in quality_of(package)
        ],
    )
