"""The model versions that can be requested, with their prices; recomputed only when the models change."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

from foretell.inference.live import LiveRegistry
from foretell.inference.package import ModelPackage
from foretell.kit.randomness import RANDOM


@dataclass(frozen=True, slots=True)
class Offer:
    """A model version and its price."""

    package: ModelPackage
    price_credits: int


@dataclass(frozen=True, slots=True)
class _Canaries:
    """Offers of one model, and their cumulative traffic weights."""

    offers: list[Offer]
    bounds: list[float]

    def draw(self) -> Offer:
        return RANDOM.choices(self.offers, cum_weights=self.bounds)[0]


class Offers:
    """The offers of a registry. They change at the same time as the registry and `GET /models`."""

    def __init__(self, registry: LiveRegistry, price_of: Callable[[ModelPackage], int]) -> None:
        """`price_of` returns the price of one prediction of a package, in credits."""
        self._registry = registry
        self._price_of = price_of
        self._offers: dict[tuple[str, str | None], Offer] = {}
        self._canaries: dict[str, _Canaries] = {}
        self._generation = -1
        self._settle()

    def get(self, model: str, version: str | None) -> Offer | None:
        """The offer of a version. Without one, the default version or a draw by the weights in `traffic.toml`."""
        if self._generation != self._registry.generation:
            self._settle()
        if version is None and model in self._canaries:
            return self._canaries[model].draw()
        return self._offers.get((model, version))

    def _settle(self) -> None:
        """Recompute the offers. Requests under way keep the offer that they have."""
        self._generation = self._registry.generation
        offers: dict[tuple[str, str | None], Offer] = {}
        for package in self._registry:
            offer = Offer(package, self._price_of(package))
            offers[package.name, package.version] = offer
            if self._registry.default_versions[package.name] == package.version:
                offers[package.name, None] = offer
        canaries = {}
        for model, split in self._registry.traffic.items():
            if split.weights and (model, None) in offers:
                drawn = self._divide(offers[model, None], split.weights)
                if drawn is not None:
                    canaries[model] = drawn
        self._offers, self._canaries = offers, canaries

    def _divide(self, default: Offer, weights: dict[str, float]) -> _Canaries | None:
        """The versions that share requests without a version. All have the price of the default version."""
        name = default.package.name
        offers = [Offer(self._registry.get(name, version), default.price_credits) for version in weights]
        return _Canaries(offers, list(accumulate(weights.values()))) if any(weights.values()) else None
