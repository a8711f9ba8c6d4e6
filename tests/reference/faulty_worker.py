"""ovyolo's own worker file with a runtime of NumPy in it, and faults on command: see :mod:`reference.workers`."""

import importlib.util
import json
import os
import random
import sys
import time

import numpy as np

spec = importlib.util.spec_from_file_location("worker", os.environ["OVYOLO_TEST_WORKER"])
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)

starts = os.environ["OVYOLO_TEST_STARTS"]
with open(starts, "ab") as file:
    file.write(b".")
faults = json.loads(os.environ["OVYOLO_TEST_FAULTS"])
kind, at = ([*faults, ["", 0]])[min(os.path.getsize(starts) - 1, len(faults))]
runs = 0


class NumPyRuntime:
    """What the tiny model of the tests computes: the mean of each cell."""

    version = "NumPy"
    api = 0

    def open(self, model, blob, device, config, depth):
        if kind == "open":
            raise RuntimeError("Failed to allocate graph: MYRIAD device is not opened.")
        if kind == "open-exit":
            os._exit(9)
        self.device = device
        return [object() for _ in range(3)]

    def bind(self, bank, slot):
        return bank.inputs[slot], bank.outputs[slot]["head0"]

    def run(self, request, bound):
        global runs  # noqa: PLW0603
        runs += 1
        image, head = bound
        if kind and (runs == at or kind == "always nan"):
            self.misbehave(head)
            if kind in ("stale", "nan", "always nan"):
                return
        time.sleep(0.001)
        height, width = head.shape[2:]
        means = image.reshape(height, 8, width, 8, 3).mean((1, 3, 4), dtype=np.float32)
        head[0, :4] = 0
        head[0, 4:] = means * np.float32(20 / 255) - 10

    def misbehave(self, head):
        if kind == "garbage":
            os.write(channel._out, bytes(random.Random(0).randrange(256) for _ in range(4000)))
        elif kind == "half":
            os.write(channel._out, b'{"op": "done", "ban')
            os._exit(0)
        elif kind == "list":
            os.write(channel._out, b"[1, 2]\n")
        elif kind == "endless":
            os.write(channel._out, b"x" * 70000)
        elif kind == "another":
            channel.send(op="done", bank=1, slot=0, seq=10**9)
        elif kind == "exit":
            print("the last word", file=sys.stderr)
            os._exit(3)
        elif kind == "hang":
            time.sleep(600)
        elif kind == "raise":
            raise RuntimeError("overheated")
        elif kind in ("nan", "always nan"):
            head[:] = np.nan
        elif kind != "stale":
            raise AssertionError(kind)

    def close(self):
        pass


if kind == "mute":
    time.sleep(600)
channel = worker.Channel()
print("a library that prints to standard output")
hello = {"op": "hello", "protocol": worker.PROTOCOL + (kind == "protocol"), "numpy": "x", "python": "y"}
channel.send(**hello)
worker.Worker(channel, NumPyRuntime).serve()
