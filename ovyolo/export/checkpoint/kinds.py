"""What a checkpoint holds: a YOLOv5 detector, or something else that is named, with what to do about it."""

from __future__ import annotations

import numpy as np

from ovyolo.errors import CheckpointError, OvyoloError, UnsupportedModelError
from ovyolo.export.checkpoint.records import BFloat16Tensor, Record, attr, children, class_name, tensor, walk

__all__ = ["check_detector", "refuse_root"]

_SEGMENTATION = "it is a segmentation model; ovyolo runs detectors with boxes only, so train or pick a detection model."
_CLASSIFICATION = "it is a classification model; ovyolo runs detectors with boxes only."
_YOLOV7 = (
    "it is a YOLOv7 checkpoint, whose head computes differently; "
    "export it to ONNX with its own repository and give that file."
)
_ULTRALYTICS = (
    "it is an Ultralytics checkpoint (YOLOv8 or later), not one of YOLOv5; "
    "export it to ONNX or OpenVINO with its own tool (`yolo export`) and give that file."
)
_YOLOX = "it is a YOLOX checkpoint; export it to ONNX with its own repository and give that file."
_STATE_DICT = (
    "it holds weights without a network description (a state_dict); give the checkpoint that the training wrote "
    "(best.pt or last.pt), or save the whole model with torch.save(model)."
)

_MODELS = {
    "SegmentationModel": _SEGMENTATION,
    "ClassificationModel": _CLASSIFICATION,
    "YOLOX": _YOLOX,
}
_HEADS = {
    "Segment": _SEGMENTATION,
    "Classify": _CLASSIFICATION,
    "IDetect": _YOLOV7,
    "IAuxDetect": _YOLOV7,
    "IBin": _YOLOV7,
    "IKeypoint": _YOLOV7,
    "YOLOXHead": _YOLOX,
}


def refuse_root(tree: object) -> OvyoloError:
    """What to say of a file that holds no network where a detector's checkpoint has one."""
    candidates: list[object] = [tree]
    if isinstance(tree, dict):
        candidates += [tree.get(key) for key in ("ema", "model", "state_dict", "model_state_dict")]
    for candidate in candidates:
        if isinstance(candidate, dict) and _holds_tensors(candidate):
            yolox = any(isinstance(key, str) and key.startswith("head.cls_preds.") for key in candidate)
            return UnsupportedModelError(_YOLOX if yolox else _STATE_DICT)
    if isinstance(tree, np.ndarray | BFloat16Tensor):
        return UnsupportedModelError("it holds a single tensor and no network; give the checkpoint of a training.")
    if isinstance(tree, dict):
        shown = ", ".join(ascii(key)[:30] for key in list(tree)[:5]) or "nothing"
        return UnsupportedModelError(
            f"it holds no network (but {shown}); give the checkpoint of a training, as best.pt."
        )
    return UnsupportedModelError(
        f"it holds something of type {type(tree).__name__} and no network; give the checkpoint of a training."
    )


def _holds_tensors(candidate: dict) -> bool:
    tensors = sum(isinstance(value, np.ndarray | BFloat16Tensor) for value in candidate.values())
    return tensors > 0 and tensors * 2 > len(candidate)


def check_detector(model: Record) -> Record:
    """The ``Detect`` layer of a network that is an anchor-based YOLOv5 detector.

    Raises:
        UnsupportedModelError: it is a network of another kind.
        CheckpointError: it is not put together as a network can be.
    """
    if model.module.startswith("ultralytics.") and not model.module.startswith("ultralytics.yolov5"):
        raise UnsupportedModelError(_ULTRALYTICS)
    if model.module.startswith("yolox."):
        raise UnsupportedModelError(_YOLOX)
    if class_name(model) in _MODELS:
        raise UnsupportedModelError(_MODELS[class_name(model)])
    _check_modules(model)
    layers = children(model).get("model")
    if layers is None or not children(layers):
        raise UnsupportedModelError(
            f"it holds a {_shown(model)}, which is not put together as a YOLOv5 network; export it with its own tool."
        )
    head = list(children(layers).values())[-1]
    kind = class_name(head)
    if kind in _HEADS:
        raise UnsupportedModelError(_HEADS[kind])
    if any(class_name(record) in ("ImplicitA", "ImplicitM") for _, record in walk(head)):
        raise UnsupportedModelError(_YOLOV7)
    if kind != "Detect":
        raise UnsupportedModelError(
            f"its last layer is {_shown(head)} and not Detect, so it is not a YOLOv5 detector; "
            "export it with its own tool."
        )
    _check_head(head)
    return head


def _check_modules(model: Record) -> None:
    """Every parameter and buffer is a tensor: later code need not ask again."""
    for path, record in walk(model):
        where = f"its layer {ascii(path)[:60]}"
        for group in ("_parameters", "_buffers"):
            found = record.state.get(group)
            if found is None:
                continue
            if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
                raise CheckpointError(f"{group} of {where} is not a mapping from names; the file is damaged.")
            for name, value in found.items():
                if value is not None and not isinstance(value, np.ndarray | BFloat16Tensor):
                    raise CheckpointError(f"{ascii(name)[:40]} of {where} is not a tensor; the file is damaged.")


def _check_head(head: Record) -> None:
    numbers: dict[str, int] = {}
    for name in ("nc", "na", "nl", "no"):
        value = attr(head, name)
        if type(value) is not int or not 0 < value < 100_000:
            raise UnsupportedModelError(
                f"its Detect layer has no proper {name} (classes, anchors, levels or outputs), so it is not of YOLOv5."
            )
        numbers[name] = value
    classes, outputs = numbers["nc"], numbers["no"]
    if outputs != 5 + classes:
        raise UnsupportedModelError(
            f"its head gives {outputs} numbers a box, where {classes} classes need {5 + classes}: it is a detector "
            "with landmarks or key points (as of faces), which ovyolo does not run; use a plain detection model."
        )
    anchors = tensor(head, "anchors")
    if anchors is None or anchors.shape != (numbers["nl"], numbers["na"], 2):
        raise UnsupportedModelError("its Detect layer has no anchors in the form of YOLOv5's, so it is not of YOLOv5.")
    convolutions = children(head).get("m")
    if convolutions is None or len(children(convolutions)) != numbers["nl"]:
        raise UnsupportedModelError("its Detect layer is not built of one convolution a level, so it is not of YOLOv5.")
    for convolution in children(convolutions).values():
        weight = tensor(convolution, "weight")
        if weight is None or weight.ndim != 4 or not weight.size or weight.shape[0] != numbers["na"] * outputs:
            raise UnsupportedModelError(
                "the convolutions of its Detect layer do not give 5 numbers and a score a class for each anchor."
            )


def _shown(record: Record) -> str:
    return ascii(f"{record.module}.{record.qualname}")[1:-1][:100]
