"""Detector files: which ones may be read, and how they become a network.

Kinds:

- ``.safetensors``, our own: plain numbers, with the network's architecture in the metadata. Reading
  one never runs code from it. The embedded detector is one.
- ``.pt`` as ultralytics writes them: a Python pickle. A pickle can contain code, so it is read in
  restricted mode, which builds only the known layers of torch and ultralytics and rejects every
  other file. That limits a malicious file to the network it describes; still, use ``.pt`` files
  from trusted sources only, and convert them with ``sdpose convert-detector`` for use on a server.
- ``.onnx`` and OpenVINO's ``.xml``, of other projects too: ``openvino_file``.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sdpose_core.detector.classes import PERSON, class_numbers
from sdpose_core.detector.factory import factory_file, is_factory
from sdpose_core.detector.network import PersonNetwork, keep_rows, load_state
from sdpose_core.detector.protocol import DetectorError
from sdpose_core.detector.ultralytics_quiet import ultralytics_tasks
from sdpose_core.embedded import DETECTOR, RTMDET
from sdpose_core.messages import error_line

FORMAT = "sdpose-detector/1"
EMBEDDED = "embedded"
OURS: Final = {0: PERSON}
"""The classes of our own files."""
OPENVINO_FILES: Final = (".onnx", ".xml")
EMBEDDED_INT8_PATH = DETECTOR.with_name("person-n-int8.xml")
"""The same network quantised, an OpenVINO model (``tools/quantise_detector.py``)."""

# Layers allowed in the plan of our own files: those of the YOLOv8, YOLO11 and YOLO26 detectors.
# Building a plan evaluates some of its text, so anything unknown is rejected first.
_LAYERS = frozenset(
    ("Conv", "DWConv", "C2f", "C3k2", "C2PSA", "SPPF", "Concat", "nn.Upsample", "Detect")
)
_PLAN_KEYS = frozenset(
    (
        "nc",
        "scales",
        "scale",
        "backbone",
        "head",
        "reg_max",
        "end2end",
        "channels",
        "depth_multiple",
        "width_multiple",
    )
)


@dataclass(frozen=True, slots=True)
class DetectorFile:
    """A detector on disk: ``name`` for answers, ``digest`` (SHA-256) to identify it."""

    path: Path
    name: str

    def digest(self) -> str:
        digest = hashlib.sha256(self.path.read_bytes())
        weights = self.path.with_suffix(".bin")
        if self.path.suffix == ".xml" and weights.is_file():
            digest.update(weights.read_bytes())
        return digest.hexdigest()

    def network(self, classes: Sequence[str] = ()) -> PersonNetwork:
        """The network for ``classes`` (``class_numbers``), fused, on the CPU in fp32.

        Raises:
            DetectorError: the file cannot be used; one sentence says why.
        """
        if self.path.suffix == ".safetensors":
            class_numbers(classes, OURS, len(OURS), str(self.path))
            return PersonNetwork(read_safetensors(self.path))
        model, names = read_pt(self.path)
        keep_rows(model, class_numbers(classes, names, len(names), str(self.path)))
        return PersonNetwork(model)


def find_detector(name_or_path: str | os.PathLike[str]) -> DetectorFile:
    """The file behind ``"embedded"``, ``"rtmdet-nano"``, a path, a factory's module, or the name
    of a published ultralytics detector.

    A published one (such as ``yolo11n.pt``) found neither here nor in ultralytics' weights folder
    is downloaded by ultralytics into that folder.

    Raises:
        DetectorError: no such file, or the download failed.
    """
    given = os.fspath(name_or_path)
    if given == EMBEDDED:
        if not DETECTOR.is_file():
            raise DetectorError(f"the embedded detector is missing: no file {DETECTOR}")
        return DetectorFile(DETECTOR, DETECTOR.stem)
    if given == RTMDET.stem:
        return DetectorFile(RTMDET, RTMDET.stem)
    if is_factory(given):
        return DetectorFile(factory_file(given), given)
    path = Path(given)
    if path.suffix not in (".pt", ".safetensors", *OPENVINO_FILES):
        raise DetectorError(
            f"{given}: expected {EMBEDDED!r}, {RTMDET.stem!r}, a .safetensors, .pt, .onnx or .xml "
            "file, package.module:factory, or the name of a published ultralytics detector such as "
            "'yolo11n.pt'"
        )
    if not path.exists() and path.suffix == ".pt" and path.name == given:
        path = _download(given)
    if not path.is_file():
        raise DetectorError(f"{given}: no such file")
    return DetectorFile(path, path.stem)


def _download(name: str) -> Path:
    ultralytics_tasks()  # quietly, before anything else imports ultralytics
    from ultralytics.utils import SETTINGS
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset

    if name not in GITHUB_ASSETS_NAMES:
        raise DetectorError(
            f"{name}: no such file, and ultralytics publishes no model of that name"
        )
    target = Path(SETTINGS["weights_dir"]) / name
    if target.is_file():
        return target
    try:
        return Path(attempt_download_asset(str(target)))
    except (OSError, RuntimeError) as error:
        raise DetectorError(
            f"{name}: no such file, and downloading it failed: {error_line(error)}"
        ) from error


def read_pt(path: Path) -> tuple[nn.Module, dict[int, str]]:
    """The unfused fp32 detection model and the class names in an ultralytics ``.pt``.

    Raises:
        DetectorError: truncated, not such a file, not a detection model, or rejected because it
            contains anything but the known layers.
    """
    if not path.is_file():
        raise DetectorError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise DetectorError(f"{path}: not an ultralytics .pt file, or truncated")
    tasks = ultralytics_tasks()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old pickles; nothing a user could act on
            saved, _ = tasks.torch_safe_load(str(path), safe_only=True)
    except (
        TypeError,
        RuntimeError,
        AttributeError,
        ImportError,
        OSError,
        EOFError,
        KeyError,
        pickle.UnpicklingError,
    ) as error:
        raise DetectorError(
            f"{path}: not an ultralytics detector that can be read safely ({type(error).__name__})"
        ) from error
    model = (saved.get("ema") or saved.get("model")) if isinstance(saved, dict) else None
    if not isinstance(model, nn.Module):
        raise DetectorError(f"{path}: not an ultralytics detector: it contains no model")
    _check_detection(model, path)
    return model.float(), dict(_member(model, "names"))


def _check_detection(model: nn.Module, path: Path) -> None:
    from ultralytics.nn.modules import Detect

    layers = getattr(model, "model", None)
    head = layers[-1] if isinstance(layers, nn.Sequential) and len(layers) else None
    if type(head) is not Detect:
        kind = type(head).__name__
        raise DetectorError(f"{path}: expected a detection model, but its last layer is {kind}")
    if _member(model, "yaml").get("channels", 3) != 3:
        raise DetectorError(f"{path}: the model does not take RGB images")
    for module in model.modules():
        if isinstance(module, nn.Upsample) and not hasattr(module, "recompute_scale_factor"):
            module.recompute_scale_factor = None  # saved by a torch older than this attribute


def _member(model: nn.Module, name: str) -> Any:
    value = getattr(model, name, None)
    return value if isinstance(value, Mapping) else {}


def build(plan: Mapping[str, Any], source: str) -> nn.Module:
    """An untrained ultralytics detection model with one class, from the plan of a network.

    The plan is what ultralytics keeps in a model's ``yaml``; its number of classes sets the width
    of the class layers, not their number of output rows.

    Raises:
        DetectorError: the plan names something outside YOLOv8, YOLO11 and YOLO26 detectors.
    """
    _check_plan(plan, source)
    tasks = ultralytics_tasks()
    try:
        model: nn.Module = tasks.DetectionModel(json.loads(json.dumps(plan)), verbose=False)
    except (ValueError, TypeError, KeyError, IndexError, RuntimeError) as error:
        raise DetectorError(f"{source}: its plan does not describe a network ({error})") from error
    keep_rows(model, [0])
    return model


def _check_plan(plan: Mapping[str, Any], source: str) -> None:
    unknown = set(plan) - _PLAN_KEYS
    if unknown:
        raise DetectorError(f"{source}: its plan has the unknown key {min(unknown)!r}")
    rows = [*plan.get("backbone", ()), *plan.get("head", ())]
    for row in rows:
        layer = row[2] if isinstance(row, list) and len(row) == 4 else None
        if layer not in _LAYERS:
            raise DetectorError(f"{source}: its plan names the unknown layer {layer!r}")
    if not rows or rows[-1][2] != "Detect":
        raise DetectorError(f"{source}: its plan does not end in a detection head")


def plan_of(model: nn.Module) -> dict[str, Any]:
    """The plan of an ultralytics model, without its provenance.

    Its ``nc`` is the width that the class layers have: a network fine-tuned to fewer classes keeps
    its original width, while ultralytics records the new number of classes.
    """
    plan = {key: value for key, value in _member(model, "yaml").items() if key in _PLAN_KEYS}
    plan["nc"] = cast(Any, model).model[-1].cv3[0][-1].in_channels
    if plan.get("scale") in (plan.get("scales") or {}):
        plan["scales"] = {plan["scale"]: plan["scales"][plan["scale"]]}
    return plan


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of one of our detector files: plan, names, licence, origin, and so on.

    Raises:
        DetectorError: not one of our files.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise DetectorError(f"{path}: a safetensors file, but not an sdpose detector")
        return {key: json.loads(text) for key, text in metadata.items() if key != "format"}
    except (OSError, SafetensorError) as error:
        raise DetectorError(f"{path}: not a safetensors file, or truncated") from error
    except json.JSONDecodeError as error:
        raise DetectorError(f"{path}: its metadata is not JSON") from error


def read_safetensors(path: Path) -> nn.Module:
    """The unfused fp32 one-class model from one of our files.

    Raises:
        DetectorError: not one of our files, or its weights do not fit its plan.
    """
    metadata = read_metadata(path)
    plan, names = metadata.get("plan"), metadata.get("names")
    if not isinstance(plan, dict) or names != [PERSON]:
        raise DetectorError(f"{path}: its metadata does not describe a person detector")
    model = build(plan, str(path))
    try:
        with safe_open(path, framework="pt") as file:
            state: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise DetectorError(f"{path}: not a safetensors file, or truncated") from error
    load_state(model, state, str(path))
    return model
