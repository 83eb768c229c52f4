"""The gRPC contract keeps buf's rules, and does not break callers of the last release."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from sdpose_client.v1 import pose_pb2
from service.rpc.servicer import PoseServicer
from tests.commands import run_command

ROOT = Path(__file__).resolve().parents[2]
RELEASED = ROOT / "protos/released.txtpb"


def buf(*arguments: str, cwd: Path = ROOT) -> str:
    """What buf has to complain; empty when nothing."""
    beside_python = Path(sys.executable).parent / "buf"
    command = str(beside_python) if beside_python.exists() else shutil.which("buf")
    if command is None:
        pytest.skip("buf is not installed (extra dev)")
    done = run_command(command, *arguments, cwd=cwd)
    return done.stdout + done.stderr


def test_lint() -> None:
    assert buf("lint") == ""


def test_nothing_breaks_callers_of_the_last_release() -> None:
    """A wanted break needs a new package, `sdpose.v2`; `make protos-release` is for releases."""
    assert buf("breaking", "--against", str(RELEASED)) == ""


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("  float score = 4;\n  //", "  //", 'field "4" with name "score"'),
        ("uint64 dropped = 3;", "uint64 dropped = 7;", 'field "3" with name "dropped"'),
        ("rpc EstimatePose(", "rpc Estimate(", 'RPC "EstimatePose"'),
    ],
)
def test_a_break_shows(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    contract = tmp_path / "protos/sdpose/v1/pose.proto"
    contract.parent.mkdir(parents=True)
    text = (ROOT / "protos/sdpose/v1/pose.proto").read_text(encoding="utf-8")
    assert text.count(old) == 1
    contract.write_text(text.replace(old, new), encoding="utf-8")
    assert complaint in buf("breaking", "--against", str(RELEASED), cwd=tmp_path)


def test_every_method_of_the_contract_is_ours() -> None:
    """The generated base class answers UNIMPLEMENTED for a method that the service forgot."""
    methods = pose_pb2.DESCRIPTOR.services_by_name["PoseService"].methods_by_name
    assert set(methods) <= set(vars(PoseServicer))
