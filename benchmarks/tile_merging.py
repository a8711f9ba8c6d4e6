"""Merging of boxes: ovyolo beside SAHI's and ensemble-boxes', in turn, on scattered and crowded boxes.

    pip install sahi ensemble-boxes numba
    python benchmarks/tile_merging.py [--rounds N] [--smoke]

Neither package is needed by ovyolo; what is not installed is left out, and the script says so. Results are compared
with SAHI's box by box: the same rule must keep the same boxes.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo._nms import merge
from ovyolo.bench.machine import describe, load_warning

SIDE, CLASSES, THRESHOLD = 10_000, 10, 0.5
WBF_MOST = 2_000  # ensemble-boxes compares each box with all before it: more takes minutes


def boxes(n: int, kind: str, classes: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
    """Scattered: each at a place of its own, 8 to 64 pixels. Crowded: twenty about each of n/20 objects."""
    rng = np.random.default_rng(n)
    if kind == "scattered":
        centre, size = rng.uniform(0, SIDE, (n, 2)), rng.uniform(8, 64, (n, 2))
    else:
        which = rng.integers(0, n // 20, n)
        size = rng.uniform(16, 96, (n // 20, 2))[which] * rng.uniform(0.85, 1.15, (n, 2))
        centre = rng.uniform(0, SIDE, (n // 20, 2))[which] + rng.normal(0, 0.08, (n, 2)) * size
    corners = np.concatenate([centre - size / 2, centre + size / 2], axis=1).astype(np.float32)
    return corners, rng.random(n).astype(np.float32), rng.integers(0, classes, n).astype(np.int32)


def installed(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        print(f"left out: {name} ({error})")
        return None


def version_of(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"{name} –"


def ways(how: str, metric: str, case: tuple[Any, Any, Any], classed: bool) -> dict[str, Callable[[], Any]]:
    """The competitors for one rule, each ready to be called; those that need to compile have done so."""
    xyxy, scores, class_ids = case
    ids = class_ids if classed else None
    made: dict[str, Callable[[], Any]] = {
        "ovyolo": lambda: merge(xyxy, scores, ids, threshold=THRESHOLD, how=how, metric=metric)
    }
    combine = installed("sahi.postprocess.combine") if how != "wbf" else None
    if combine is not None:
        backends = import_module("sahi.postprocess.backends")
        rows = np.concatenate([xyxy, scores[:, None], class_ids[:, None]], axis=1)
        name = ("batched_" if classed else "") + ("nms" if how == "nms" else "greedy_nmm")
        for backend in ("numpy", "numba"):
            if backend == "numba" and installed("numba") is None:
                continue

            def sahi(backend: str = backend) -> Any:
                backends.set_postprocess_backend(backend)
                return getattr(combine, name)(rows, metric.upper(), THRESHOLD)

            backends.set_postprocess_backend(backend)
            getattr(combine, name)(rows[:50], metric.upper(), THRESHOLD)
            made[f"sahi/{backend}"] = sahi
    ensemble = installed("ensemble_boxes") if metric == "iou" and how in ("nms", "wbf") else None
    if ensemble is not None and len(xyxy) <= (20_000 if how == "nms" else WBF_MOST):
        unit = np.clip(xyxy.astype(float) / SIDE, 0, 1)
        function = ensemble.nms if how == "nms" else ensemble.weighted_boxes_fusion
        labels = class_ids if classed else np.zeros_like(class_ids)
        function([unit[:50]], [scores[:50]], [labels[:50]], iou_thr=THRESHOLD)
        made["ensemble-boxes"] = lambda: function([unit], [scores], [labels], iou_thr=THRESHOLD)
    return made


def measure(made: dict[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, float], dict[str, Any]]:
    """The median of each, in turn; those that take seconds run twice only.

    CPU time, not the clock's: on a machine that others use, long calls are interrupted and short ones are not.
    """
    times: dict[str, list[float]] = {name: [] for name in made}
    results: dict[str, Any] = {}
    for _ in range(rounds):
        for name, call in made.items():
            if times[name] and times[name][0] > 1.0 and len(times[name]) > 1:
                continue
            begin = time.process_time()
            results[name] = call()
            times[name].append(time.process_time() - begin)
    return {name: 1000 * float(np.median(one)) for name, one in times.items()}, results


def same_as_sahi(how: str, ours: Any, theirs: Any, case: tuple[Any, Any, Any], metric: str) -> str:
    """Boxes that only one of the two keeps, or (merging) puts into another group; and how near to the threshold."""
    _, _, index, group = ours
    kept = set(index.tolist())
    different = kept ^ set(theirs)
    if how == "nmm":
        owner = {member: keeper for keeper, members in theirs.items() for member in members}
        different |= {i for i, k in owner.items() if int(index[group[i]]) != k}
    if not different:
        return f"equal ({len(kept)} kept)"
    near = max(nearest(case, i, metric) for i in different)
    return f"{len(different)} differ; the farthest from a tie is {near:.1e} from the threshold"


def nearest(case: tuple[Any, Any, Any], at: int, metric: str) -> float:
    """How near the overlap of a box with any other comes to the threshold."""
    xyxy = case[0].astype(float)
    one = xyxy[at]
    corner = np.clip(np.minimum(one[2:], xyxy[:, 2:]) - np.maximum(one[:2], xyxy[:, :2]), 0, None)
    both = corner.prod(axis=1)
    first, second = (one[2:] - one[:2]).prod(), (xyxy[:, 2:] - xyxy[:, :2]).prod(axis=1)
    whole = np.minimum(first, second) if metric == "ios" else first + second - both
    return float(np.abs(np.delete(both / whole, at) - THRESHOLD).min())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--smoke", action="store_true", help="small and few: shows that it runs")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    machine = describe()
    print(f"{machine['cpu']}, {machine['usable_cores']} cores, kernels {machine['kernels']}, numpy {np.__version__}, "
          + ", ".join(map(version_of, ("ovyolo", "sahi", "numba", "ensemble-boxes"))))  # fmt: skip
    if noisy := load_warning():
        print(f"CAUTION: {noisy}")
    sizes = (500,) if options.smoke else (20_000, 50_000)
    rounds = 2 if options.smoke else options.rounds
    print(f"threshold {THRESHOLD}, boxes on {SIDE}x{SIDE} pixels, medians of {rounds} rounds in turn, CPU time\n")
    for n in sizes:
        for kind in ("scattered", "crowded"):
            for classed in (True, False):
                case = boxes(n, kind, CLASSES)
                for how, metric in (("nms", "iou"), ("nms", "ios"), ("nmm", "iou"), ("nmm", "ios")):
                    line(n, kind, how, metric, case, classed, rounds)
    for kind in ("scattered", "crowded"):
        n = min(WBF_MOST, 500 if options.smoke else WBF_MOST)
        line(n, kind, "wbf", "iou", boxes(n, kind, CLASSES), True, rounds)


def line(n: int, kind: str, how: str, metric: str, case: Any, classed: bool, rounds: int) -> None:
    """Measure one case and print it."""
    times, results = measure(ways(how, metric, case, classed), rounds)
    others = {name: ms for name, ms in times.items() if name != "ovyolo"}
    text = f"{n:>6} {kind:<9} {how} {metric} {f'{CLASSES} classes' if classed else 'one class':<10}"
    text += f" ovyolo {times['ovyolo']:8.2f} ms"
    text += "".join(f"  {name} {ms:9.1f}" for name, ms in others.items())
    if others:
        text += f"  fastest other / ovyolo {min(others.values()) / times['ovyolo']:6.1f}x"
    if "sahi/numpy" in results:
        text += f"  {same_as_sahi(how, results['ovyolo'], results['sahi/numpy'], case, metric)}"
    print(text, flush=True)


if __name__ == "__main__":
    main()
