"""What the process boundary costs: a frame through a worker, beside the same old runtime called directly, in turn.

    python benchmarks/worker_boundary.py --model MODEL [--release R] [--rounds N] [--smoke] [--json]

Both sides copy a picture of the input's size into the input, compute it on the CPU by the old OpenVINO, one at a time,
and read the outputs where they lie. ``direct`` does it in the old Python itself (this same script, started there; it
takes its own time), ``worker`` through :func:`ovyolo.vpu.open_worker_session` from here. They take turns.
The price is the median of the differences of neighbours. Needs an environment of ``ovyolo vpu setup``.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

INTERVAL = (2.5, 97.5)


def direct(model):
    """In the old Python: for each line on standard input, one frame; answers its milliseconds."""
    compute = direct_2021(model) if is_2021() else direct_2022(model)
    for line in sys.stdin:
        picture = np.random.default_rng(int(line)).integers(0, 256, compute.shape, np.uint8)
        begin = time.perf_counter()
        total = read(compute(picture))
        spent = time.perf_counter() - begin
        print(json.dumps({"ms": 1e3 * spent, "sum": total}), flush=True)


def read(outputs):
    """Touch a part of every output, about as much as a decoder does."""
    return float(sum(float(output.ravel()[::97].sum()) for output in outputs))


def is_2021():
    try:
        import openvino.runtime  # noqa: F401
    except ImportError:
        return True
    return False


def direct_2022(model):
    from openvino.runtime import Core

    core = Core()
    known = set(core.get_property("CPU", "SUPPORTED_PROPERTIES"))
    wanted = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "ENFORCE_BF16": "NO"}
    compiled = core.compile_model(model, "CPU", {k: v for k, v in wanted.items() if k in known})
    request = compiled.create_infer_request()
    names = sorted(name for port in compiled.outputs for name in port.get_names())

    def compute(picture):
        request.get_input_tensor().data[:] = picture
        request.infer()
        return [request.get_tensor(name).data for name in names]

    compute.shape = tuple(compiled.input(0).shape)
    return compute


def direct_2021(model):
    from openvino.inference_engine import IECore

    core = IECore()
    network = core.read_network(model)
    (name,) = network.input_info
    network.input_info[name].precision = "U8"
    known = set(core.get_metric("CPU", "SUPPORTED_CONFIG_KEYS"))
    loaded = core.load_network(network, "CPU", {"ENFORCE_BF16": "NO"} if "ENFORCE_BF16" in known else {})
    request = loaded.requests[0]

    def compute(picture):
        request.input_blobs[name].buffer[:] = picture
        request.infer()
        return [request.output_blobs[output].buffer for output in sorted(request.output_blobs)]

    compute.shape = tuple(network.input_info[name].input_data.shape)
    compute.network = loaded  # its requests do not keep it
    return compute


class Direct:
    """The other process, asked from here."""

    def __init__(self, python, model):
        command = [str(python), "-I", __file__, "--direct", "--model", str(model)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, seed):
        self._process.stdin.write(f"{seed}\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer["ms"], answer["sum"]

    def close(self):
        self._process.stdin.close()
        self._process.wait(30)


class Worker:
    """The session, from here."""

    def __init__(self, model, environment):
        from ovyolo.vpu import open_worker_session

        self._session, card = open_worker_session(model, "LEGACY.CPU", environment=environment)
        self._order = np.argsort(card.head.outputs)
        self.runtime = self._session.effective["RUNTIME"]

    def __call__(self, seed):
        picture = np.random.default_rng(seed).integers(0, 256, self._session.input_shape, np.uint8)
        begin = time.perf_counter()
        self._session.input(0)[:] = picture
        self._session.submit(0)
        outputs = self._session.wait(0)
        total = read([outputs[k] for k in self._order])
        return 1e3 * (time.perf_counter() - begin), total

    def close(self):
        self._session.close()


def measure(options):
    from ovyolo.bench.machine import describe, load_warning
    from ovyolo.detector import model_file
    from ovyolo.vpu import Environment, find_environment
    from ovyolo.vpu.environment import home, python_in

    model = model_file(Path(options.model), options.imgsz, None).resolve()
    release = options.release
    environment = Environment(python_in(home() / release), release) if release else find_environment(stick=False)
    sides = {"direct": Direct(environment.python, model), "worker": Worker(model, environment)}
    rounds = 5 if options.smoke else options.rounds
    taken = {name: [] for name in sides}
    for seed in range(-min(10, rounds), rounds):  # negative: to warm up
        sums = []
        for name in sorted(sides, reverse=bool(seed % 2)):  # either is first in half of the rounds
            spent, total = sides[name](abs(seed))
            sums.append(total)
            if seed >= 0:
                taken[name].append(spent)
        if not np.isclose(*sums, rtol=1e-4):
            sys.exit(f"error: the two computed different heads for picture {seed}: {sums}")
    for side in sides.values():
        side.close()
    spent = {name: np.array(values) for name, values in taken.items()}
    difference = spent["worker"] - spent["direct"]
    rng = np.random.default_rng(0)
    drawn = np.median(difference[rng.integers(rounds, size=(1000, rounds))], axis=1)
    result = {
        "machine": describe(),
        "runtime": sides["worker"].runtime,
        "model": model.name,
        "rounds": rounds,
        "median_ms": {name: float(np.median(values)) for name, values in spent.items()},
        "price_ms": float(np.median(difference)),
        "price_interval_ms": [float(edge) for edge in np.percentile(drawn, INTERVAL)],
    }
    if options.json:
        print(json.dumps(result, indent=1))
        return
    print(", ".join(f"{name} {value}" for name, value in result["machine"].items() if name != "instructions"))
    print(load_warning() or "no other program was busy")
    print(f"{result['model']} on OpenVINO {result['runtime']}, CPU, {rounds} rounds, the two in turn")
    for name, value in result["median_ms"].items():
        print(f"{name:8} {value:7.2f} ms a frame")
    low, high = result["price_interval_ms"]
    print(f"price    {result['price_ms']:7.2f} ms a frame ({low:.2f} to {high:.2f}: 95 % of the median)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--imgsz", type=int, help="for a .pt")
    parser.add_argument("--release", help="of the old OpenVINO (default: the best that is there)")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--smoke", action="store_true", help="five rounds: shows that it runs")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--direct", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.direct:
        direct(options.model)
    else:
        measure(options)


if __name__ == "__main__":
    main()
