"""Fine-tuning the detector: its start, its refusals, and a real epoch where torchvision loads."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from sdpose_core.detector import load_detector
from sdpose_core.detector.embed import write_embedded
from sdpose_core.detector.protocol import DetectorError
from sdpose_core.detector.ultralytics_quiet import ultralytics_tasks
from sdpose_core.detector.weights import read_metadata, read_pt, read_safetensors
from sdpose_core.train.detector import (
    DetectorRecipe,
    check_trainer,
    people_only,
    single_class_start,
    train_detector,
)


@pytest.fixture
def two_classes(tmp_path: Path) -> Path:
    """An untrained detector of two classes, the second of them people, as a ``.pt``."""
    tasks = ultralytics_tasks()
    torch.manual_seed(0)
    model = tasks.DetectionModel("yolo11n.yaml", nc=2, verbose=False)
    model.names = {0: "dog", 1: "person"}
    path = tmp_path / "two.pt"
    torch.save({"model": model, "train_args": {}}, path)
    return path


def test_the_start_keeps_the_row_of_people(two_classes: Path, tmp_path: Path) -> None:
    before, _ = read_pt(two_classes)
    after, names = read_pt(single_class_start(str(two_classes), tmp_path / "run"))
    assert names == {0: "person"}
    assert after.yaml["nc"] == 1
    for old, new in zip(before.model[-1].cv3, after.model[-1].cv3, strict=True):
        assert torch.equal(new[-1].weight, old[-1].weight[1:2])
        assert torch.equal(new[-1].bias, old[-1].bias[1:2])
    rest = {k: v for k, v in before.state_dict().items() if ".cv3." not in k}
    assert all(torch.equal(v, after.state_dict()[k]) for k, v in rest.items())


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.yaml"):
        train_detector(tmp_path / "nothing.yaml", DetectorRecipe(), tmp_path)
    cats = tmp_path / "cats.yaml"
    cats.write_text("names: {0: cat, 1: person}\n")
    with pytest.raises(DetectorError, match="one class 'person'"):
        train_detector(cats, DetectorRecipe(), tmp_path)
    cats.write_text("nothing: here\n")
    with pytest.raises(DetectorError, match="not a description"):
        train_detector(cats, DetectorRecipe(), tmp_path)
    with pytest.raises(DetectorError, match=r"starts from an ultralytics \.pt"):
        single_class_start("embedded", tmp_path)


def test_a_fine_tuned_detector_keeps_its_width(tmp_path: Path) -> None:
    """As ultralytics leaves one: class layers as wide as for 80 classes, its plan saying 1."""
    tasks = ultralytics_tasks()
    torch.manual_seed(0)
    wide = tmp_path / "wide.pt"
    model = tasks.DetectionModel("yolo11n.yaml", nc=80, verbose=False)
    model.names = {0: "person", **{i: f"other {i}" for i in range(1, 80)}}
    torch.save({"model": model, "train_args": {}}, wide)
    tuned = single_class_start(str(wide), tmp_path / "run")
    assert read_pt(tuned)[0].yaml["nc"] == 1
    write_embedded(tuned, tmp_path / "person.safetensors")
    written = read_safetensors(tmp_path / "person.safetensors").state_dict()
    for key, value in read_pt(tuned)[0].state_dict().items():
        assert torch.equal(written[key], value.half().to(value.dtype)), key


def test_a_set_lies_where_its_description_lies(tmp_path: Path) -> None:
    """Ultralytics would look for a relative path in the working folder."""
    data = tmp_path / "data.yaml"
    data.write_text("path: .\ntrain: images/train\nval: images/val\nnames: [person]\n")
    assert people_only(data)["path"] == str(tmp_path)
    data.write_text("train: images/train\nval: images/val\nnames: [person]\n")
    assert people_only(data)["path"] == str(tmp_path)
    data.write_text("path: elsewhere\ntrain: a\nval: b\nnames: [person]\n")
    assert people_only(data)["path"] == "elsewhere"


def trainer_loads() -> bool:
    try:
        check_trainer()
    except DetectorError:
        return False
    return True


def person_set(folder: Path) -> Path:
    """A YOLO-format set of four drawn pictures."""
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        (folder / "images" / part).mkdir(parents=True)
        (folder / "labels" / part).mkdir(parents=True)
        for number in range(4):
            image = rng.integers(0, 255, (96, 96, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / "images" / part / f"{number}.jpg"), image)
            (folder / "labels" / part / f"{number}.txt").write_text("0 0.5 0.5 0.4 0.8\n")
    data = folder / "data.yaml"
    data.write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames:\n  0: person\n")
    return data


@pytest.mark.filterwarnings("default")
def test_an_epoch_gives_a_detector_or_the_reason_why_not(
    two_classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = person_set(tmp_path / "set")
    recipe = DetectorRecipe(
        start=str(two_classes), epochs=1, image_size=96, batch=2, workers=0, device="cpu"
    )
    if not trainer_loads():
        with pytest.raises(DetectorError, match="trainer needs"):
            train_detector(data, recipe, tmp_path / "run")
        return
    result = train_detector(data, recipe, Path("run"))
    assert result == tmp_path / "run" / "person.safetensors"
    assert (tmp_path / "run" / "run" / "weights").is_dir()
    assert read_metadata(result)["training"]["epochs"] == 1
    detector = load_detector(result, backend="torch", input_size=96)
    (found,) = detector.detect([np.zeros((80, 60, 3), np.uint8)])
    assert found.boxes.shape[1] == 4
