"""Weights in FP16, everything small in FP32.

OpenVINO's own compression rounds every constant. Half of a file's rounding error then comes from biases and scales,
which are a thousandth of its size. Here only the large ones are stored as FP16, each with a conversion back that every
runtime folds when it loads the model; weights that were FP16 in the checkpoint lose nothing at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import openvino

__all__ = ["halve_weights"]

FP16_LARGEST = 65504.0


def halve_weights(model: openvino.Model) -> int:
    """Store the large FP32 constants of ``model`` as FP16, in place.

    Large is what has more than one long axis: weights of convolutions and matrix products, not biases, scales or
    scalars. A constant with a value beyond FP16's range stays as it is.

    Returns:
        How many constants were changed.
    """
    from openvino import opset1

    changed = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Constant" or node.get_element_type().get_type_name() != "f32":
            continue
        data = node.get_data()
        if data.size <= max(data.shape, default=1) or not np.abs(data).max() <= FP16_LARGEST:
            continue
        readers = list(node.output(0).get_target_inputs())
        half = opset1.constant(data.astype(np.float16))
        half.set_friendly_name(f"{node.get_friendly_name()}/f16")
        back = opset1.convert(half, "f32")
        back.set_friendly_name(node.get_friendly_name())
        back.get_rt_info()["decompression_0"] = True
        for reader in readers:
            reader.replace_source_output(back.output(0))
        changed += 1
    return changed
