"""Runs the examples of pages for users, as pasted: `python -m tools.readme README.md ...`.

Every `bash` and `python` block runs in order, in a folder that holds links to the project's files,
so that what an example writes goes there. `make serve` runs in the background from then on, on free
ports that take the place of the documented ones. Answers and files of JSON must hold people. A
block under a comment `<!-- not run: REASON -->` is left out, and named.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.environment import clean
from tools.lock import ROOT

_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>.+?) -->\n)?```(?P<language>bash|python)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_SERVE = "make serve"
# For examples that hang: a slow or busy machine is no fault of the documents.
_READY_S = 900
_BLOCK_S = 1800


@dataclass(frozen=True, slots=True)
class Block:
    """One example; `reason` is why it is not run."""

    page: str
    line: int
    language: str
    text: str
    reason: str | None


def blocks(page: Path) -> Iterator[Block]:
    """The examples of a page, in order."""
    text = page.read_text()
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("text")) + 1
        yield Block(page.name, line, match["language"], match["text"], match["reason"])


class ExampleError(Exception):
    """An example that does not do what its page shows."""


class Stand:
    """A folder to run examples in, and the server once one has started it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for entry in ROOT.iterdir():
            if not entry.name.startswith(".git"):
                (folder / entry.name).symlink_to(entry)
        self.ports = {"localhost:8000": _free_port(), "localhost:8001": _free_port()}
        http, grpc = map(str, self.ports.values())
        home = folder / ".home"
        home.mkdir()
        self.environment = {
            **clean(os.environ, str(home)),
            "SDPOSE_HTTP_PORT": http,
            "SDPOSE_GRPC_PORT": grpc,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        self.server: subprocess.Popen[bytes] | None = None

    def run(self, block: Block) -> None:
        """Raises `ExampleError` with the output if the example fails."""
        text = block.text
        if _SERVE in text:
            self._serve()
            text = "\n".join(line for line in text.splitlines() if not line.startswith(_SERVE))
        for documented, port in self.ports.items():
            text = text.replace(documented, f"localhost:{port}")
        command = ["bash", "-euo", "pipefail"] if block.language == "bash" else [sys.executable]
        done = subprocess.run(
            [*command, "-c", text],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=_BLOCK_S,
        )
        if done.returncode:
            raise ExampleError(f"status {done.returncode}\n{done.stdout}{done.stderr}")
        answers = list(_answers(done.stdout))
        if answers and not any(answer["people"] for answer in answers):
            raise ExampleError(f"no person in any answer:\n{done.stdout}")

    def stop(self) -> None:
        """Ends the server; raises `ExampleError` if it does not end cleanly."""
        if self.server is None:
            return
        os.killpg(self.server.pid, signal.SIGINT)  # as Ctrl-C does
        self.server.wait(60)

    def _serve(self) -> None:
        self.server = subprocess.Popen(
            _SERVE.split(),
            cwd=self.folder,
            env=self.environment,
            stdout=sys.stderr,
            start_new_session=True,
        )
        url = f"http://localhost:{self.ports['localhost:8000']}/readyz"
        give_up = time.monotonic() + _READY_S
        while time.monotonic() < give_up and self.server.poll() is None:
            try:
                with urllib.request.urlopen(url, timeout=5):
                    return
            except OSError:
                time.sleep(0.2)
        raise ExampleError(f"{_SERVE} was not ready within {_READY_S} s")


def _answers(text: str) -> Iterator[dict[str, list[object]]]:
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and "people" in value:
            yield value


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def main(pages: list[str]) -> int:
    """Runs the pages; 1 where an example fails."""
    with tempfile.TemporaryDirectory() as folder:
        stand = Stand(Path(folder))
        try:
            for block in (block for page in pages for block in blocks(ROOT / page)):
                where = f"{block.page}:{block.line}"
                if block.reason is not None:
                    sys.stdout.write(f"{where}: not run: {block.reason}\n")
                    continue
                began = time.monotonic()
                stand.run(block)
                sys.stdout.write(f"{where}: ok, {time.monotonic() - began:.1f} s\n")
                sys.stdout.flush()
        except (ExampleError, subprocess.TimeoutExpired) as error:
            sys.stdout.write(f"{where}: {error}\n")
            return 1
        finally:
            stand.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
