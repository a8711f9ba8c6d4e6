"""Trying networks until one is within the budget: full INT8 first, then other ranges, then layers in floating point."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.card import Card
from ovyolo.compress.budget import Budget, Trial, search_prefix
from ovyolo.compress.head_error import HeadError
from ovyolo.compress.journal import Journal
from ovyolo.compress.layers import quantized_names, restore
from ovyolo.compress.refine import Quantizer
from ovyolo.compress.scheme import Scheme
from ovyolo.compress.sensitivity import Harm, busiest, rank_layers, sureness
from ovyolo.compress.stages import Stages
from ovyolo.evaluate.judge import Judge, run_pictures

if TYPE_CHECKING:
    import openvino

__all__ = ["Found", "Search"]

LOOKED_AT = 32  # calibration pictures of which the busiest serve to rank layers
RANKED_BY = 8
SURE = 0.25


@dataclass(frozen=True, eq=False)
class Found:
    """The network that was chosen.

    Args:
        model: ready to be written.
        trial: what it scored.
        scheme: how it was quantized.
        error: of its heads against the original's, on calibration pictures; None when layers were not ranked.
        harms: the layers, most harmful first; empty when they were not ranked.
    """

    model: openvino.Model
    trial: Trial
    scheme: Scheme
    error: HeadError | None = None
    harms: tuple[Harm, ...] = ()


@dataclass(eq=False)
class Search:
    """Looks for the cheapest network within a budget.

    Args:
        quantizer: makes INT8 networks of the original.
        card: what they are.
        judge: measures them.
        budget: what they may lose.
        journal: keeps what was measured.
        stages: told what goes on.
    """

    quantizer: Quantizer
    card: Card
    judge: Judge
    budget: Budget
    journal: Journal
    stages: Stages
    harms: list[Harm] = field(default_factory=list)
    error: HeadError | None = None
    asked: Scheme = field(default_factory=Scheme)

    def run(self, scheme: Scheme) -> Found | None:
        """The first network within the budget, from fastest to slowest; None when there is none."""
        self.asked = scheme
        best: tuple[Trial, Scheme, openvino.Model] | None = None
        for variant in [scheme, *alternatives(scheme)]:
            quantized = self.quantizer(variant)
            trial, ready = self._try(variant, quantized, ())
            if trial.fits:
                return Found(ready, trial, variant)
            if best is None or trial.drop < best[0].drop:
                best = trial, variant, quantized
        assert best is not None
        _, variant, quantized = best
        return None if variant.weights_only else self._restore_layers(variant, quantized)

    def _try(
        self, scheme: Scheme, quantized: openvino.Model, float_layers: Sequence[str]
    ) -> tuple[Trial, openvino.Model]:
        """Measure a network, or recall what it scored."""
        from ovyolo.export.half import halve_weights

        words = scheme.describe(self.asked)
        if float_layers:
            words += f", {len(float_layers)} of {len(self.quantizer.layers)} layers in floating point"
        ready = restore(quantized, self.quantizer.layers, list(float_layers)) if float_layers else quantized.clone()
        halve_weights(ready)
        ready.validate_nodes_and_infer_types()
        name = _name({"scheme": scheme.to_dict(), "float": sorted(float_layers)})
        figures = self.journal.measure(f"figures {name}", lambda: self._measure(ready, words))
        trial = self.budget.judge(words, figures, float_layers)
        self.stages.say(f"  {words}: AP {figures['ap']:.2f}, drop {trial.drop:.2f}")
        return trial, ready

    def _measure(self, model: openvino.Model, words: str) -> dict[str, Any]:
        with self.stages.stage("measuring AP in 8 bits", len(self.judge.dataset), "picture") as tell:
            return self.judge.score(self.judge.predict(model, tell=tell, keep=True))

    def _restore_layers(self, scheme: Scheme, quantized: openvino.Model) -> Found | None:
        """Put layers back, those first that are worth most, until the budget is met."""
        self.harms = self._rank(scheme, quantized)
        useful = [one for one in self.harms if one.harm > 0]
        found: dict[int, tuple[Trial, openvino.Model]] = {}

        def attempt(length: int) -> bool:
            found[length] = self._try(scheme, quantized, [one.layer for one in useful[:length]])
            return found[length][0].fits

        length = search_prefix([one.cost for one in useful], attempt)
        if length is None:
            return None
        trial, ready = found[length]
        return Found(ready, trial, scheme, self.error, tuple(self.harms))

    def _rank(self, scheme: Scheme, quantized: openvino.Model) -> list[Harm]:
        pictures, heads = self.samples()
        if sureness(self.card, heads) < 1:
            self.stages.say(
                "  the network finds nothing in the calibration pictures, so layers cannot be ranked by them"
            )
            return []
        names = [name for name in quantized_names(quantized) if name in self.quantizer.layers]
        key = f"errors {_name(scheme.to_dict())}"
        known: dict[str, float] = dict(self.journal.measured.get(key, {}))

        def keep(name: str, error: float) -> None:
            known[name] = error
            if len(known) % 10 == 0 or len(known) == len(names):
                self.journal.keep(key, known)

        with self.stages.stage("ranking layers by harm", len(names), "layer") as tell:
            self.error, harms = rank_layers(
                quantized, self.quantizer.layers, names, self.card, pictures, heads, known=known, tell=tell, keep=keep
            )
        return harms

    def samples(self) -> tuple[list[NDArray[np.uint8]], list[list[NDArray[np.float32]]]]:
        """The busiest calibration pictures, and the original's heads for them."""
        pictures = self.quantizer.pictures
        looked_at = [pictures[i] for i in spread(len(pictures), LOOKED_AT)]
        heads = run_pictures(self.quantizer.model, self.card, looked_at)
        chosen = busiest(self.card, looked_at, heads, RANKED_BY)
        return [looked_at[i] for i in chosen], [heads[i] for i in chosen]


def spread(total: int, count: int) -> list[int]:
    """At most ``count`` of ``total`` indices, evenly spread."""
    if total <= count:
        return list(range(total))
    return [int(index) for index in np.linspace(0, total - 1, count).round()]


def alternatives(scheme: Scheme) -> list[Scheme]:
    """Other ways to quantize that cost no speed, to be tried before layers go back to floating point."""
    if scheme.weights_only or scheme.bits != 8 or scheme.activations != "static":
        return []
    others = []
    if scheme.rounding == "nearest" and scheme.weights == "symmetric" and scheme.smooth_quant is None:
        others.append(replace(scheme, rounding="compensated", overflow="pairs", granularity="channel"))
    if scheme.ranges != "minmax":
        others.append(replace(scheme, ranges="minmax"))
    return others


def _name(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
