"""Licences and parts: listed by the command, in NOTICE, and in a bill of materials."""

from __future__ import annotations

import json
import subprocess
import sys
from email.message import Message
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name
from typer.testing import CliRunner

from service.cli.licences import UNKNOWN, licence_of
from service.cli.main import app
from tools.licences import HEAD, NOTICE, served, with_section
from tools.lock import CPU_LOCK, DEV_LOCK, ROOT, pins

# Licences that go with AGPL-3.0-or-later; a package under any other needs a look.
FINE = ("MIT", "BSD", "Apache", "ISC", "PSF", "Python Software Foundation", "MPL", "Mozilla",
        "Zlib", "AGPL", "GNU Affero")  # fmt: skip


def test_notice_has_every_package_of_the_image() -> None:
    text = NOTICE.read_text(encoding="utf-8")
    assert text.rstrip() == with_section(text).rstrip(), "run `make licences`"
    listed = text.partition(HEAD)[2]
    for name in pins(CPU_LOCK):
        assert any(
            canonicalize_name(line.split(":")[0]) == canonicalize_name(name)
            for line in map(str.strip, listed.splitlines())
        ), name


def test_every_licence_goes_with_ours() -> None:
    for package in served():
        assert package.licence != UNKNOWN, package
        assert any(fine in package.licence for fine in FINE), package
        assert package.source.startswith("http"), package


def test_the_command_lists_what_is_installed() -> None:
    shown = CliRunner().invoke(app, ["licences"])
    assert shown.exit_code == 0
    (line,) = (line for line in shown.output.splitlines() if line.startswith("fastapi "))
    assert "MIT" in line
    everything = json.loads(CliRunner().invoke(app, ["licences", "--json"]).output)
    assert {canonicalize_name(each["name"]) for each in everything} >= set(
        map(canonicalize_name, pins(CPU_LOCK))
    )
    assert all(set(each) == {"name", "version", "licence", "source"} for each in everything)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            [("License-Expression", "MIT OR Apache-2.0"), ("License", "see file")],
            "MIT OR Apache-2.0",
        ),
        ([("Classifier", "License :: OSI Approved :: MIT License")], "MIT License"),
        ([("Classifier", "License :: OSI Approved"), ("License", "BSD")], "BSD"),
        ([("License", "A text of a licence\nof many lines")], "A text of a licence"),
        ([("License", "x" * 200)], UNKNOWN),
        ([], UNKNOWN),
    ],
)
def test_where_a_licence_is_found(given: list[tuple[str, str]], told: str) -> None:
    metadata = Message()
    metadata["Name"] = "some"
    for name, value in given:
        metadata[name] = value
    assert licence_of(metadata) == told


@pytest.mark.slow("reads every package, 1 min")
def test_the_bill_of_materials(tmp_path: Path) -> None:
    bill = tmp_path / "sbom.json"
    command = [sys.executable, "-m", "cyclonedx_py", "environment", sys.executable]
    subprocess.run([*command, "--output-file", str(bill)], check=True, capture_output=True)
    content = json.loads(bill.read_text())
    assert content["bomFormat"] == "CycloneDX"
    found = {canonicalize_name(each["name"]): each.get("version") for each in content["components"]}
    for name in pins(CPU_LOCK):
        assert canonicalize_name(name) in found
    image = (ROOT / "Dockerfile").read_text()
    assert f"cyclonedx-bom=={pins(DEV_LOCK)['cyclonedx-bom']}" in image
    for target in ("cpu", "gpu"):
        assert f"COPY --from=parts-{target} /sbom.cdx.json /opt/sbom.cdx.json" in image
