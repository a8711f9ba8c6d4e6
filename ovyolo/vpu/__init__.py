"""Myriad X sticks (NCS2): their last runtime needs an old Python, so it runs as a worker process behind the Detector.

``worker`` is the process, one file that knows nothing of ovyolo. ``process`` starts and ends one, ``memory`` is what
both share, ``pool`` gives work to whoever is free and replaces who fails, ``session`` is what a Detector sees.
``environment`` finds and ``install`` makes the old runtime, ``blob`` compiles for a stick without one, ``check``,
``usb`` and ``diagnosis`` say what is wrong. Facts about the plugin: OpenVINO 2022.2's documentation of the VPU device
(https://docs.openvino.ai/2022.2/openvino_docs_OV_UG_supported_plugins_MYRIAD.html).
"""

from __future__ import annotations

from ovyolo.vpu.blob import make_blob
from ovyolo.vpu.environment import Environment, find_environment
from ovyolo.vpu.session import WorkerSession, open_worker_session

__all__ = ["Environment", "WorkerSession", "find_environment", "make_blob", "open_worker_session"]
