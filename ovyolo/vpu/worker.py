"""The worker: a process that computes on a runtime of its own, for a client that cannot load it.

One file that needs nothing of ovyolo, because it runs on the Python that the old runtime needs: 3.7 or later, NumPy,
and any OpenVINO from 2021.3 on. :mod:`ovyolo.vpu.process` starts it.

**Protocol 1.** Messages are lines of ASCII JSON, requests on standard input, answers on standard output (what libraries
print goes to standard error). The first line is the worker's: ``{"op": "hello", "protocol": 1, ...}``. Then, by ``op``:

========== ============================================== =====================================================
request    fields                                         answer
========== ============================================== =====================================================
probe                                                     probed: what is here (versions, devices, plugin, sticks)
compile    model, blob                                    compiled: inputs, outputs of the blob written; no device
open       protocol, model, blob, device, config, depth   ready: device, runtime, depth
attach     bank, path, size, slots, stamp, input, outputs attached: bank
detach     bank                                           (none)
run        bank, slot, seq                                done: bank, slot, seq
stop                                                      (it ends)
========== ============================================== =====================================================

Whatever fails is answered by ``{"op": "error", "of": <the op>, "text": ...}`` with the request's bank, slot and seq.
A *bank* is a file that both map: ``slots`` times the same places for the u8 input, the f32 outputs, and a stamp into
which the worker writes ``seq`` when the outputs are whole. At most ``depth`` runs are under way. When standard input
ends, the client is gone: the worker removes its banks and ends, too.
"""

from __future__ import annotations

import ctypes
import glob
import io
import json
import mmap
import os
import subprocess
import sys
import threading
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec

PROTOCOL = 1
LIBUSB_OF_PACKAGE: list = []  # the path of the one that was loaded
WITHOUT_A_STICK = {"MYRIAD_ENABLE_MX_BOOT": "NO"}


class Channel:
    """The two pipes. Reading is done by one thread at a time, writing by any."""

    def __init__(self):
        if sys.platform == "win32":
            import msvcrt

            for number in (0, 1):
                msvcrt.setmode(number, os.O_BINARY)
        self._in = os.fdopen(os.dup(0), "rb")
        self._out = os.dup(1)
        os.dup2(2, 1)  # what a library prints must not get between the messages
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        self._writing = threading.Lock()

    def receive(self):
        """The next request; None when the client is gone or talks nonsense."""
        try:
            message = json.loads(self._in.readline().decode("ascii"))
        except ValueError:
            return None
        return message if isinstance(message, dict) else None

    def send(self, **message):
        line = json.dumps(message).encode("ascii") + b"\n"
        with self._writing:
            while line:
                line = line[os.write(self._out, line) :]


class Bank:
    """The memory that client and worker share, as arrays of each slot."""

    def __init__(self, message):
        import numpy as np

        self.path = message["path"]
        with open(self.path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), message["size"])

        def array(slot, dtype, place):
            return np.ndarray(place["shape"], dtype, self._map, place["offset"] + slot * message["stride"])

        slots = range(message["slots"])
        self.inputs = [array(slot, np.uint8, message["input"]) for slot in slots]
        self.outputs = [
            {place["name"]: array(slot, np.float32, place) for place in message["outputs"]} for slot in slots
        ]
        self.stamps = [array(slot, np.uint64, {"shape": [1], "offset": message["stamp"]}) for slot in slots]


class Runtime2:
    """OpenVINO 2022.1 and later."""

    def __init__(self):
        sys.modules.setdefault("openvino_telemetry", None)
        try:
            from openvino import Core, Tensor, get_version
        except ImportError:
            from openvino.runtime import Core, Tensor, get_version

        self._tensor = Tensor
        self.version = get_version()
        self._core = Core()
        self._compiled = None

    def devices(self):
        return list(self._core.available_devices)

    def sticks(self):
        return list(self._core.get_property("MYRIAD", "AVAILABLE_DEVICES"))

    def open(self, model, blob, device, config, depth):
        """Compile (or read the blob); returns how many runs under way keep the device busy."""
        if blob:
            self._compiled = self._import(blob, device, config)
        else:
            wanted = known_of(config, self._core.get_property(device, "SUPPORTED_PROPERTIES")) if config else {}
            self._compiled = self._core.compile_model(self._core.read_model(model), device, wanted)
        depth = depth or int(self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        return [self._compiled.create_infer_request() for _ in range(depth)]

    def _import(self, blob, device, config):
        with open(blob, "rb") as file:
            return self._core.import_model(io.BytesIO(file.read()), device, config)

    def bind(self, bank, slot):
        """What :meth:`run` needs of a slot, made once."""
        outputs = [(name, self._tensor(array, shared_memory=True)) for name, array in bank.outputs[slot].items()]
        return self._tensor(bank.inputs[slot], shared_memory=True), outputs

    def run(self, request, bound):
        image, outputs = bound
        request.set_input_tensor(image)
        for name, tensor in outputs:
            request.set_tensor(name, tensor)
        request.start_async()
        request.wait()

    def compile(self, model, blob):
        compiled = self._core.compile_model(self._core.read_model(model), "MYRIAD", WITHOUT_A_STICK)
        exported = compiled.export_model()
        with open(blob, "wb") as file:
            file.write(exported if isinstance(exported, bytes) else exported.getvalue())
        again = self._import(blob, "MYRIAD", WITHOUT_A_STICK)
        return tuple(
            [
                {
                    "name": port.get_any_name(),
                    "shape": list(port.shape),
                    "type": port.get_element_type().get_type_name(),
                }
                for port in ports
            ]
            for ports in (again.inputs, again.outputs)
        )

    def close(self):
        self._compiled = self._core = None


class Runtime1:
    """OpenVINO 2021, by its Inference Engine API."""

    def __init__(self):
        from openvino import inference_engine

        self._engine = inference_engine
        self.version = inference_engine.get_version()
        self._core = inference_engine.IECore()
        self._executable = None

    def devices(self):
        return list(self._core.available_devices)

    def sticks(self):
        return list(self._core.get_metric("MYRIAD", "AVAILABLE_DEVICES"))

    def open(self, model, blob, device, config, depth):
        if blob:
            self._executable = self._core.import_network(blob, device, config, depth or 0)
        else:
            wanted = known_of(config, self._core.get_metric(device, "SUPPORTED_CONFIG_KEYS")) if config else {}
            network = self._core.read_network(model)
            for port in network.input_info.values():
                port.precision = "U8"
            self._executable = self._core.load_network(network, device, wanted, depth or 0)
        self._input = next(iter(self._executable.input_info))
        return list(self._executable.requests)

    def bind(self, bank, slot):
        def blob(array, precision):
            description = self._engine.TensorDesc(precision, list(array.shape), "NCHW" if array.ndim == 4 else "CHW")
            return self._engine.Blob(description, array)

        outputs = [(name, blob(array, "FP32"), array) for name, array in bank.outputs[slot].items()]
        return blob(bank.inputs[slot], "U8"), outputs

    def run(self, request, bound):
        image, outputs = bound
        request.set_blob(self._input, image)
        for name, blob, _ in outputs:
            request.set_blob(name, blob)
        request.async_infer()
        status = request.wait(-1)
        if status != 0:
            raise RuntimeError("the request ended with status %d" % status)

    def compile(self, model, blob):
        """By the program that came with that release: from Python, making requests asks for a device."""
        libraries = os.path.join(package_folder(), "libs")
        program = os.path.join(libraries, "myriad_compile")
        if not os.path.isfile(program):
            raise RuntimeError("myriad_compile is missing in %s" % libraries)
        around = dict(os.environ, LD_LIBRARY_PATH=os.pathsep.join([libraries, os.environ.get("LD_LIBRARY_PATH", "")]))
        if LIBUSB_OF_PACKAGE:
            around["LD_PRELOAD"] = LIBUSB_OF_PACKAGE[0]
        command = [program, "-m", model, "-o", blob, "-ip", "U8", "-op", "FP32"]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        done = subprocess.run(command, check=False, env=around, **pipes)
        if done.returncode != 0 or not os.path.isfile(blob):
            raise RuntimeError(done.stdout.decode("utf-8", "replace"))
        network = self._core.read_network(model)
        inputs = [{"name": n, "shape": p.input_data.shape, "type": "u8"} for n, p in network.input_info.items()]
        return inputs, [{"name": n, "shape": p.shape, "type": "f32"} for n, p in network.outputs.items()]

    def close(self):
        self._executable = self._core = None


def known_of(config, known):
    """Those settings that the plugin knows: of others it makes an error."""
    return {key: value for key, value in config.items() if key in set(known)}


def load_runtime():
    """The newest API that the installed OpenVINO has."""
    try:
        return Runtime2()
    except ImportError:
        return Runtime1()


def preload_libusb():
    """Load libusb for the plugin: the system's, or that of the package libusb-package. Says which, or None."""
    if not sys.platform.startswith("linux"):
        return "with the plugin"
    with suppress(OSError):
        ctypes.CDLL("libusb-1.0.so.0", mode=ctypes.RTLD_GLOBAL)
        return "the system's"
    try:
        import libusb_package

        path = str(libusb_package.get_library_path())
        ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        LIBUSB_OF_PACKAGE.append(path)
        return "of the package libusb-package"
    except (ImportError, OSError):
        return None


def package_folder():
    import openvino

    return list(openvino.__path__)[0]


def find_plugin():
    """Paths of the Myriad plugin and of its USB firmware, None for what is missing."""
    root = package_folder()
    found = []
    for names in (("*myriad*plugin*.*", "*myriadPlugin*.*"), ("usb-ma2x8x.mvcmd",)):
        paths = [p for name in names for p in glob.glob(os.path.join(root, "**", name), recursive=True)]
        found.append(paths[0] if paths else None)
    return found


class Worker:
    """Answers requests; each of its threads reads one, and computes it while the next thread reads."""

    def __init__(self, channel, load=load_runtime):
        self._channel = channel
        self._load = load
        self._reading = threading.Lock()
        self._runtime = None
        self._requests = []
        self._banks = {}
        self._bound = {}

    def serve(self):
        """Answer until the client says stop or is gone. Returns whether it said so."""
        while True:
            with self._reading:
                message = self._channel.receive()
                if message is None or message.get("op") == "stop":
                    self._end(message is not None)
            try:
                answer = self._answer(message)
            except Exception as error:  # the client decides what it means
                kind = "" if type(error) is RuntimeError else type(error).__name__ + ": "
                answer = {"op": "error", "of": message.get("op"), "text": kind + str(error)}
            if answer is None:
                continue
            for key in ("bank", "slot", "seq"):
                if key in message:
                    answer[key] = message[key]
            self._channel.send(**answer)

    def _answer(self, message):
        kind = message["op"]
        if kind == "run":
            return self._run(message["bank"], message["slot"], message["seq"])
        if kind == "attach":
            bank = Bank(message)
            bound = [(self._runtime.bind(bank, slot), bank.stamps[slot]) for slot in range(message["slots"])]
            self._banks[message["bank"]], self._bound[message["bank"]] = bank, bound
            return {"op": "attached"}
        if kind == "detach":
            self._bound.pop(message["bank"], None)
            self._banks.pop(message["bank"], None)
            return None
        if kind == "open":
            return self._open(message)
        if kind == "probe":
            return self._probe()
        if kind == "compile":
            inputs, outputs = self._ready_runtime().compile(message["model"], message["blob"])
            return {"op": "compiled", "runtime": self._runtime.version, "inputs": inputs, "outputs": outputs}
        raise ValueError("unknown request %r" % (kind,))

    def _ready_runtime(self):
        if self._runtime is None:
            self._libusb = preload_libusb()
            self._runtime = self._load()
        return self._runtime

    def _open(self, message):
        if message["protocol"] != PROTOCOL:
            raise ValueError("the client speaks protocol %r, this worker %d" % (message["protocol"], PROTOCOL))
        runtime = self._ready_runtime()
        self._requests = runtime.open(
            message["model"], message.get("blob"), message["device"], message["config"], message.get("depth")
        )
        for _ in self._requests:  # and the thread that reads this: one always listens while all compute
            threading.Thread(target=self.serve, daemon=True).start()
        return {"op": "ready", "runtime": runtime.version, "depth": len(self._requests), "device": message["device"]}

    def _run(self, bank, slot, seq):
        bound, stamp = self._bound[bank][slot]
        request = self._requests.pop()
        try:
            self._runtime.run(request, bound)
        finally:
            self._requests.append(request)
        stamp[0] = seq
        return {"op": "done"}

    def _probe(self):
        runtime = self._ready_runtime()
        plugin, firmware = find_plugin()
        found = {"plugin": plugin, "firmware": firmware, "sticks": [], "problem": None}
        try:
            found["sticks"] = runtime.sticks()
        except Exception as error:  # it is what is asked for
            found["problem"] = str(error)
        return {
            "op": "probed",
            "runtime": runtime.version,
            "devices": runtime.devices(),
            "libusb": self._libusb,
            "myriad": found,
        }

    def _end(self, told):
        if not told:
            for bank in list(self._banks.values()):
                with suppress(OSError):
                    os.remove(bank.path)
        if self._runtime is not None and told:
            self._requests.clear()
            self._bound.clear()
            self._runtime.close()  # a stick is reset by it, so that the next program finds it
        os._exit(0 if told else 1)


def main():
    channel = Channel()
    numpy = find_spec("numpy") and import_module("numpy").__version__
    channel.send(op="hello", protocol=PROTOCOL, python=sys.version.split()[0], numpy=numpy)
    Worker(channel).serve()


if __name__ == "__main__":
    main()
