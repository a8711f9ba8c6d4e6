"""NNCF behind a door: no telemetry, no output of its own, our progress."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.compress.scheme import Scheme
from ovyolo.errors import ExportError, OvyoloError

if TYPE_CHECKING:
    import openvino

__all__ = ["compress_weights", "load_nncf", "nncf_options", "quantize_graph", "silence"]

TELEMETRY = "openvino_telemetry"


@contextlib.contextmanager
def hidden_modules(*names: str) -> Iterator[None]:
    """Make importing ``names`` fail, where they are not loaded already."""
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def load_nncf() -> Any:
    """NNCF, loaded so that it reports nothing to anybody, and without PyTorch.

    Its telemetry package is hidden while it loads: NNCF then uses a stub, and no client id is written to the user's
    home either. PyTorch is hidden unless it is loaded already: NNCF would load it wherever it is installed. Whoever
    wants NNCF's PyTorch side imports torch before.

    Raises:
        OvyoloError: NNCF is not installed or cannot be loaded.
    """
    before = os.environ.get("NNCF_CI")
    os.environ["NNCF_CI"] = "1"
    try:
        with hidden_modules(*(() if "nncf" in sys.modules else (TELEMETRY, "torch"))):
            import nncf
            from nncf.telemetry import decorator
            from nncf.telemetry.wrapper import NNCFTelemetryStub
    except ImportError as error:
        raise OvyoloError(
            f"quantizing needs NNCF ({error}): install it with `pip install 'ovyolo[quantize]'`"
        ) from error
    finally:
        if before is None:
            del os.environ["NNCF_CI"]
        else:
            os.environ["NNCF_CI"] = before
    # somebody else may have loaded it before us, with its telemetry
    decorator.telemetry = NNCFTelemetryStub()
    return nncf


@contextlib.contextmanager
def silence(nncf: Any) -> Iterator[None]:
    """Keep NNCF's log and progress bars off the terminal, and PyTorch out of the process: NNCF asks it about models."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), hidden_modules("torch"):
            yield
    finally:
        logger.setLevel(level)


class _Counted(Sequence[NDArray[np.uint8]]):
    """The calibration pictures, telling how many have been taken."""

    def __init__(self, pictures: Sequence[NDArray[np.uint8]], tell: Callable[[int], None]) -> None:
        self._pictures, self._tell = pictures, tell

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: Any) -> Any:
        picture = self._pictures[index]
        self._tell(int(index) + 1)
        return picture[None]


def _range_parameters(name: str) -> Any:
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet as Known

    return {
        "mean-minmax": Known.MEAN_MINMAX,
        "minmax": Known.MINMAX,
        "median-minmax": Known.MEDIAN_MINMAX,
        "quantile": Known.MEAN_QUANTILE,
        "histogram": Known.HISTOGRAM,
    }[name]


def _advanced(nncf: Any, scheme: Scheme) -> Any:
    from nncf.common.quantization.structs import QuantizationScheme
    from nncf.quantization.advanced_parameters import AdvancedSmoothQuantParameters, QuantizationParameters

    fix = nncf.OverflowFix
    options: dict[str, Any] = {
        "overflow_fix": {
            "pairs": fix.DISABLE, "half": fix.ENABLE, "first-layer": fix.FIRST_LAYER, "none": fix.DISABLE,
        }[scheme.overflow],
        "disable_bias_correction": scheme.bias_correction == "none" or scheme.rounding == "compensated",
    }  # fmt: skip
    if scheme.ranges != "mean-minmax":
        options["activations_range_estimator_params"] = _range_parameters(scheme.ranges)
    if scheme.smooth_quant is not None:
        options["smooth_quant_alphas"] = AdvancedSmoothQuantParameters(convolution=scheme.smooth_quant)
    weights: dict[str, Any] = {}
    if scheme.weights == "asymmetric":
        weights["mode"] = QuantizationScheme.ASYMMETRIC
    if scheme.granularity == "tensor":
        weights["per_channel"] = False
    if weights:
        options["weights_quantization_params"] = QuantizationParameters(**weights)
    return nncf.AdvancedQuantizationParameters(**options)


def nncf_options(nncf: Any, scheme: Scheme) -> dict[str, Any]:
    """``scheme`` as the arguments of ``nncf.quantize``."""
    return {
        "preset": nncf.QuantizationPreset.MIXED if scheme.preset == "mixed" else nncf.QuantizationPreset.PERFORMANCE,
        "target_device": nncf.TargetDevice.CPU,
        "fast_bias_correction": scheme.bias_correction != "accurate",
        "advanced_parameters": _advanced(nncf, scheme),
    }


def quantize_graph(
    model: openvino.Model,
    pictures: Sequence[NDArray[np.uint8]],
    scheme: Scheme,
    tell: Callable[[int], None] = lambda done: None,
) -> openvino.Model:
    """A copy of ``model`` with NNCF's quantizers.

    Args:
        model: FP32, static, its input u8 ``[1, H, W, 3]``.
        pictures: u8 ``(H, W, 3)`` each, letterboxed.
        scheme: how.
        tell: called with the number of pictures done in the pass that is under way.

    Raises:
        ExportError: NNCF cannot quantize this graph in this way.
    """
    nncf = load_nncf()
    try:
        with silence(nncf):
            quantized: openvino.Model = nncf.quantize(
                model.clone(),
                nncf.Dataset(_Counted(pictures, tell)),
                subset_size=len(pictures),
                **nncf_options(nncf, scheme),
            )
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, nncf.InternalError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExportError(f"NNCF cannot quantize the model ({scheme.describe()}): {reason}") from error
    return quantized


def compress_weights(model: openvino.Model, mode: str = "int8_sym") -> openvino.Model:
    """A copy of ``model`` with only its weights in fewer bits; it computes in floating point.

    Args:
        model: FP32.
        mode: ``"int8_sym"`` or ``"int8_asym"``; NNCF's other modes leave convolutions in 8 bits all the same.

    Raises:
        ExportError: NNCF cannot do it.
    """
    nncf = load_nncf()
    modes = {"int8_asym": nncf.CompressWeightsMode.INT8_ASYM, "int8_sym": nncf.CompressWeightsMode.INT8_SYM}
    if mode not in modes:
        raise ExportError(f"{mode!r} is no way to compress weights: {', '.join(modes)}")
    try:
        with silence(nncf):
            compressed: openvino.Model = nncf.compress_weights(model.clone(), mode=modes[mode])
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, nncf.InternalError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExportError(f"NNCF cannot compress the weights ({mode}): {reason}") from error
    return compressed
