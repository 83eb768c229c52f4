"""Networks of others, run beside ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from sdpose_core.checkpoints import load_student
from sdpose_core.export import export_student
from sdpose_core.export.export import smooth_crops
from sdpose_core.vision.heatmaps import MAX_REFINEMENT, decode_tensor
from tests.train.people import coco_folder
from tools.bench.__main__ import command
from tools.bench.peer_files import Peer, read_peers
from tools.bench.peers import Contender, Measured, draw

LIT = (40, 100)
"""x and y of the brightest pixel of a crop."""


class Brightest(nn.Module):
    """Answers where the crop is brightest, in any of the kinds; BGR if asked to."""

    def __init__(self, kind: str, fixed: bool = False) -> None:
        super().__init__()
        self.kind, self.fixed = kind, fixed
        self.register_buffer("sum", torch.ones(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Any:
        light = (images * self.sum).sum(1)
        batch = 1 if self.fixed else images.shape[0]
        x, y = light.amax(1)[:, None], light.amax(2)[:, None]
        if self.kind == "simcc":
            # Two bins a pixel.
            return (
                x.repeat_interleave(2, 2).expand(-1, 17, -1) * 1.0,
                y.repeat_interleave(2, 2).expand(-1, 17, -1) * 1.0,
            )
        if self.kind == "keypoints":
            place = torch.stack(
                (y.argmax(2) / 256, x.argmax(2) / 192, light.amax((1, 2))[:, None]), 2
            )
            return place.expand(batch, 17, 3).reshape(batch, 1, 17, 3)
        small = nn.functional.max_pool2d(light[:, None], 4)
        return small.expand(-1, 17, -1, -1) * 1.0


def write(folder: Path, kind: str, *, fixed: bool = False, **values: Any) -> None:
    names = ["x", "y"] if kind == "simcc" else ["answer"]
    axes = {} if fixed else {name: {0: "batch"} for name in ("images", *names)}
    torch.onnx.export(
        Brightest(kind, fixed),
        (torch.rand(1 if fixed else 2, 3, 256, 192),),
        str(folder / f"{kind}.onnx"),
        input_names=["images"],
        output_names=names,
        dynamic_axes=axes,
        opset_version=17,
        dynamo=False,
    )
    fields = {"name": kind, "file": f"{kind}.onnx", "output": kind, **values}
    describe(folder, fields)


def describe(folder: Path, fields: dict[str, Any]) -> None:
    lines = ["[[peer]]", "input_size = [192, 256]"]
    for name, value in fields.items():
        shown = str(value).lower() if isinstance(value, bool) else repr(value)
        lines.append(f"{name} = {shown}")
    (folder / "peers.toml").write_text("\n".join(lines))


def lit(count: int, colour: tuple[int, int, int] = (200, 200, 200)) -> np.ndarray[Any, Any]:
    crops = np.zeros((count, 256, 192, 3), np.uint8)
    crops[:, LIT[1], LIT[0]] = colour
    return crops


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("kind", ["heatmaps", "simcc", "keypoints"])
def test_every_kind_of_output(kind: str, fixed: bool, tmp_path: Path) -> None:
    values = {"order": "yxs", "normalised": True} if kind == "keypoints" else {}
    write(tmp_path, kind, fixed=fixed, **values)
    [description] = read_peers(tmp_path)
    peer = Peer(description, tmp_path, "fp32")
    for count in (1, 3):
        points, scores = peer(lit(count))
        assert points.shape == (count, 17, 2)
        assert scores.shape == (count, 17)
        assert np.abs(points - LIT).max() <= (4 if kind == "heatmaps" else 0.5)
        assert scores.min() > 0


@pytest.mark.filterwarnings("ignore")
def test_values_are_normalised_and_colours_turned(tmp_path: Path) -> None:
    write(tmp_path, "simcc", mean=[10.0, 20.0, 30.0], std=[2.0, 4.0, 5.0])
    [description] = read_peers(tmp_path)
    red = lit(1, (200, 0, 0))
    _, scores = Peer(description, tmp_path, "fp32")(red)
    assert scores[0, 0] == pytest.approx((200 - 10) / 2 - 20 / 4 - 30 / 5)
    write(tmp_path, "simcc", mean=[10.0, 20.0, 30.0], std=[2.0, 4.0, 5.0], bgr=True)
    [description] = read_peers(tmp_path)
    _, scores = Peer(description, tmp_path, "fp32")(red)
    assert scores[0, 0] == pytest.approx(-10 / 2 - 20 / 4 + (200 - 30) / 5)


def test_our_own_student_as_a_peer_answers_alike(tmp_path: Path) -> None:
    student = load_student()
    export_student(student, tmp_path / "ours.onnx")
    describe(tmp_path, {"name": "ours", "file": "ours.onnx", "output": "heatmaps", "padding": 1.15})
    [description] = read_peers(tmp_path)
    crops = smooth_crops(3, (256, 192), seed=4)
    points, peaks = Peer(description, tmp_path, "fp32")(crops.permute(0, 2, 3, 1).numpy())
    with torch.inference_mode():
        expected, heights = decode_tensor(student.eval()(crops), MAX_REFINEMENT)
    clear = heights.numpy() > 0.1
    assert clear.sum() > 5
    assert np.abs(points - 4 * expected.numpy())[clear].max() < 0.05
    np.testing.assert_allclose(peaks, heights, atol=1e-3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        ("heatmaps", {"output": "keypoints"}, r"kind keypoints is \(B, 17, 3\), it is \(., 17, 64"),
        ("keypoints", {"output": "heatmaps"}, r"kind heatmaps is \(B, 17, h, w\)"),
        ("heatmaps", {"output": "simcc"}, r"expected two outputs"),
        ("heatmaps", {"input_size": [192, 192]}, "its input is .* which is not"),
        ("heatmaps", {"layout": "nhwc"}, "layout nhwc"),
    ],
)
def test_a_description_that_does_not_fit(
    kind: str, values: dict[str, Any], said: str, tmp_path: Path
) -> None:
    write(tmp_path, kind)
    text = (tmp_path / "peers.toml").read_text()
    for name, value in values.items():
        kept = [line for line in text.splitlines() if not line.startswith(f"{name} =")]
        text = "\n".join([*kept, f"{name} = {value!r}"])
    (tmp_path / "peers.toml").write_text(text)
    [description] = read_peers(tmp_path)
    with pytest.raises(ValueError, match=said):
        Peer(description, tmp_path, "fp32")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, r"cannot be read .* one table \[\[peer\]\] each"),
        ("peer = ", "not a TOML file"),
        ("[peers]\n", r"expected tables \[\[peer\]\]"),
        ("[[peer]]\nname = 'a'\n", "peer 1: file: "),
        (
            "[[peer]]\nname='a'\nfile='a.onnx'\noutput='boxes'\ninput_size=[1, 1]\n",
            "peer 1: output: ",
        ),
        (
            "[[peer]]\nname='a'\nfile='a.onnx'\noutput='simcc'\ninput_size=[192, 256]\n",
            "there is no file a.onnx",
        ),
    ],
)
def test_a_file_of_descriptions_that_is_wrong(text: str | None, said: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "peers.toml").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_peers(tmp_path)


def test_a_file_that_is_no_network(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"nothing")
    describe(tmp_path, {"name": "a", "file": "a.onnx", "output": "heatmaps"})
    [description] = read_peers(tmp_path)
    with pytest.raises(ValueError, match=r"a\.onnx: OpenVINO cannot read it"):
        Peer(description, tmp_path, "fp32")


@pytest.mark.filterwarnings("ignore")
def test_the_command(tmp_path: Path) -> None:
    write(tmp_path, "heatmaps")
    annotations, images = coco_folder(tmp_path / "set")
    arguments = [
        *(str(tmp_path), "--annotations", str(annotations)),
        *("--images", str(images), "--precisions", "fp32", "--batches", "1,2"),
        *("--rounds", "1", "--seconds", "0.05", "--plot", str(tmp_path / "plot.png")),
    ]
    done = CliRunner().invoke(command("peers"), arguments)
    assert done.exit_code == 0, done.output
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows[2:]] == [
        "| sdpose-lite, 0 cycles, fp32",
        "| heatmaps, fp32",
    ]
    for row in rows[2:]:
        cells = [cell.strip() for cell in row.strip("| ").split("|")]
        assert -1 <= float(cells[3]) <= 1
        assert float(cells[4]) > 0
        assert float(cells[5]) > 0
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--annotations", "a.json"], "belong together"),
        (["--plot", "a.png"], "--plot shows AP"),
        (["--precisions", "int4"], "int4"),
    ],
)
def test_options_that_do_not_go_together(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(command("peers"), arguments)
    assert done.exit_code != 0
    assert said in str(done.exception)


def test_a_network_without_ap_is_drawn_as_a_line(tmp_path: Path) -> None:
    def nothing(_: object) -> object:
        raise AssertionError("is not run to be drawn")

    measured = [
        Measured(Contender(name, nothing, (192, 256), 1.15, None, ours), {1: ms}, ap)
        for name, ours, ms, ap in (("a", True, 5.0, 0.7), ("b, random weights", False, 9.0, None))
    ]
    draw(measured, 1, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000
