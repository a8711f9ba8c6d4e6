"""What ``compress`` does, as one small value: from keyword arguments, from YAML, and beside every result."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovyolo.errors import DataError, DimensionError, require

if TYPE_CHECKING:
    from ovyolo.compress.channels import Target

__all__ = ["FAST", "Recipe", "read_recipe"]


@dataclass(frozen=True)
class Recipe:
    """How to compress. Each step is left out when its number is 0.

    Args:
        speedup: how many times faster than the FP32 original the result is to be, all steps together, measured on this
            machine; channels go until it is. None: as one of the next three says.
        channels, macs, params: the share of them that goes, instead of a speedup.
        criterion: by what channels are ranked: ``"taylor"``, ``"l1"``, ``"l2"`` or ``"bn"``.
        activation: what takes the place of dearer activation functions: ``"hardswish"``, ``"relu"``, or ``"keep"``.
            SiLU's exponentials take a quarter of a nano's time in 8 bits. ``"auto"``: Hardswish, in as few places as
            reach the speedup, first in those where it does least to the heads.
        levels: what becomes of the coarsest levels that find nothing which the others do not find as well
            (:func:`~ovyolo.compress.levels.idle_levels`): ``"heads"`` removes their heads and what nothing else reads,
            which changes nothing that the others say; ``"cut"`` also whatever is computed on cells as wide as theirs,
            if it is to recover from that; ``"auto"`` cuts where channels would have to go otherwise; ``"keep"`` removes
            nothing.
        idle: the share of the small, the medium and the large objects that a level may be alone to find and still goes.
            The others can learn to find them where there is training enough, on the objects of ``data``; 0.02 or 0.03
            buys a level that finds little alone.
        weigh: what a channel's worth is divided by in the ranking: ``"params"``, ``"macs"`` or ``"ms"``, what it costs.
        prune_steps: rounds of pruning, with ``prune_epochs`` of training after each but the last.
        prune_epochs: see there.
        recover_epochs: training after the channels are gone, and what pruning did not need of its own epochs; left out
            where nothing had to go.
        sparsity: the share of weights that become zero while it recovers; they make a zipped file smaller, nothing
            faster.
        sparsify: ``"global"`` or ``"local"`` magnitude.
        quantize: whether the result is INT8.
        size: what share of the original's FP16 file the result's may be, both zipped, such as 0.2: the weights' steps
            get wider in the layers that bear it (:func:`~ovyolo.compress.qat.widen.choose_widths`), which makes nothing
            slower and costs far less than zeros. None: any.
        qat_epochs: of training with quantizers; 0 stops at post-training quantization.
        keep_float: layers that stay in floating point where others are quantized, such as ``"model.9"``; ``"heads"``:
            the last convolutions.
        distill: how much the heads of the uncompressed network count beside the labels while it recovers. They help
            in a few epochs where no channels are gone; in many the labels alone come further. Quantizers are trained
            by what the network was in floating point, whatever this is.
        features: how much the maps inside it count, where no channels are gone
            (:func:`~ovyolo.train.distill.feature_loss`).
        lr: learning rate of the training between; ``qat_lr`` of that with quantizers.
        batch: pictures a step.
        calibration: pictures by which ranges are set.
        baseline: also train the uncompressed network for as many epochs, for an honest comparison.
        max_drop: points of AP that may be lost against the baseline (without one, the original). Where more is lost,
            other recipes of the same speed are tried, three in all (:func:`~ovyolo.compress.tries.tries_of`); if none
            fits, nothing is written. None: any.
        seed: of everything.

    Raises:
        DimensionError: an argument is out of range.

    Example:
        >>> from ovyolo.compress.recipe import Recipe
        >>> Recipe(speedup=None, macs=0.5).prune_target()
        ('macs', 0.5)
    """

    speedup: float | None = 3.0
    channels: float | None = None
    macs: float | None = None
    params: float | None = None
    criterion: str = "taylor"
    activation: str = "auto"
    levels: str = "auto"
    idle: float = 0.005
    weigh: str = "params"
    prune_steps: int = 2
    prune_epochs: int = 1
    recover_epochs: int = 18
    sparsity: float = 0.0
    sparsify: str = "global"
    quantize: bool = True
    size: float | None = None
    qat_epochs: int = 2
    keep_float: tuple[str, ...] = ()
    distill: float = 0.0
    features: float = 0.0
    lr: float = 0.005
    qat_lr: float = 0.0005
    batch: int = 16
    calibration: int = 128
    baseline: bool = True
    max_drop: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        self.prune_target()
        for name in ("prune_steps", "batch", "calibration"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "a whole number from 1")
        for name in ("prune_epochs", "recover_epochs", "qat_epochs", "seed"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "a whole number from 0")
        for name in ("lr", "qat_lr"):
            require(0 < getattr(self, name) < 1, name, getattr(self, name), "a number above 0")
        require(0 <= self.sparsity < 1, "sparsity", self.sparsity, "a share from 0 to below 1")
        for name in ("distill", "features"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "a number from 0")
        require(self.criterion in ("taylor", "l1", "l2", "bn"), "criterion", self.criterion, "taylor, l1, l2 or bn")
        require(
            self.activation in ("auto", "hardswish", "relu", "keep"),
            "activation", self.activation, "auto, hardswish, relu or keep",
        )  # fmt: skip
        require(self.levels in ("auto", "cut", "heads", "keep"), "levels", self.levels, "auto, cut, heads or keep")
        require(self.weigh in ("params", "macs", "ms"), "weigh", self.weigh, "params, macs or ms")
        require(0 <= self.idle < 1, "idle", self.idle, "a share from 0 to below 1")
        require(self.sparsify in ("global", "local"), "sparsify", self.sparsify, "global or local")
        require(self.size is None or 0 < self.size < 1, "size", self.size, "a share above 0 and below 1")
        if self.size is not None and not self.quantize:
            raise DimensionError("size asks for wider steps of 8 bits: quantize, or leave size out")
        require(self.max_drop is None or 0 <= self.max_drop <= 100, "max_drop", self.max_drop, "points from 0 to 100")

    def prune_target(self) -> tuple[str, float] | None:
        """What channels go for: ``(kind, number)``, None where none go.

        Raises:
            DimensionError: several are given, or one is out of range.
        """
        given = {name: getattr(self, name) for name in ("speedup", "channels", "macs", "params")}
        wanted = {name: value for name, value in given.items() if value}
        if len(wanted) > 1 and self.speedup == Recipe.speedup:
            wanted.pop("speedup", None)  # the default gives way to what was asked for
        if len(wanted) > 1:
            raise DimensionError(f"{' and '.join(wanted)} are given: channels go for one target only")
        if not wanted:
            return None
        ((kind, value),) = wanted.items()
        if kind == "speedup":
            require(value > 1, kind, value, "a number above 1")
        else:
            require(0 < value < 1, kind, value, "a share above 0 and below 1")
        return kind, float(value)

    @property
    def pruning_epochs(self) -> int:
        """Of training between rounds of pruning, if there is something to prune."""
        return (self.prune_steps - 1) * self.prune_epochs if self.prune_target() else 0

    @property
    def epochs(self) -> int:
        """Of training in all."""
        return self.pruning_epochs + self.recover_epochs + (self.qat_epochs if self.quantize else 0)

    def channel_target(self, kind: str, value: float) -> Target:
        """As the channels' room takes it."""
        from ovyolo.compress.channels import Target

        return Target(**{kind: value})

    def to_json(self) -> str:
        """As text."""
        return json.dumps(asdict(self), indent=1)


def read_recipe(path: str | Path, base: Recipe | None = None) -> Recipe:
    """A recipe from a YAML or JSON file: a mapping of :class:`Recipe`'s names; what it leaves out is as in ``base``.

    Raises:
        DataError: the file cannot be read, or names something that a recipe has not.
        DimensionError: a value is out of range.
    """
    import yaml

    path = Path(path)
    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise DataError(f"{path} is no recipe that can be read: {reason}") from error
    return changed(base or Recipe(), told or {}, str(path))


def changed(base: Recipe, changes: Any, source: str) -> Recipe:
    """``base`` with some values changed by name."""
    known = {field.name for field in fields(Recipe)}
    if not isinstance(changes, dict) or not set(changes) <= known:
        wrong = sorted(set(changes) - known) if isinstance(changes, dict) else [repr(changes)[:40]]
        raise DataError(f"{source} has {wrong[0]!r}, which no recipe has: known are {', '.join(sorted(known))}")
    if "keep_float" in changes:
        kept = changes["keep_float"] or ()
        if isinstance(kept, str):
            kept = [] if kept == "none" else kept.split(",")
        if not isinstance(kept, list | tuple) or not all(isinstance(name, str) for name in kept):
            raise DataError(
                f"{source} has keep_float {kept!r}: it takes a list of layers, such as model.24 or heads, or none"
            )
        changes = {**changes, "keep_float": tuple(kept)}
    if any(changes.get(name) for name in ("channels", "macs", "params")) and "speedup" not in changes:
        changes = {**changes, "speedup": None}
    try:
        return replace(base, **changes)
    except TypeError as error:
        raise DataError(f"{source} has a value of the wrong kind: {error}") from error


FAST = replace(
    Recipe(), prune_steps=1, recover_epochs=4, qat_epochs=1, baseline=False, speedup=2.7, lr=0.002, distill=1.0,
    features=1.0,
)  # fmt: skip
"""For a result within the hour: fewer epochs, at a rate that leaves what is known, taught by the original, less asked
for, no baseline."""
