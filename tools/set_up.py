"""Sets up `.venv` for make: `python tools/set_up.py serve`, `dev` or `dev-all`.

Run by the Python that `tools/find_python.sh` chose, with the standard library alone. All packages
are pinned by a list (`tools/lock.py`), so pip resolves nothing. What an earlier run left half done
is done again; what it finished stays.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
LOCKS = {
    name: ROOT / "deploy" / f"requirements-{name}.lock" for name in ("cpu", "gpu", "dev", "dev-all")
}
# To render the chart in tests. It declares a newer Python and needs none of it: kept apart.
HELM = "helm-sdkpy==0.1.32"
# What `sdpose serve` loads: a set-up that cannot load it is not done, and loading writes bytecode.
LOADED = (
    "import service.process, sdpose_core.estimator, av, grpc; "
    "import sdpose_core.hardware.backends.openvino"
)
_REPORT_EVERY_S = 10.0
_NO_NETWORK = re.compile(
    r"NewConnectionError|NameResolutionError|Max retries exceeded|Read timed out|ProxyError"
    r"|ConnectTimeout|ConnectionResetError|Connection broken|IncompleteRead"
)


class SetupError(Exception):
    """The set-up stopped; the message is a sentence: what was wrong and what to do."""


class Progress:
    """Lines with the seconds since the start; the current one again while nothing happens."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._printed = self._began
        self._doing = ""
        threading.Thread(target=self._again, daemon=True).start()

    def say(self, doing: str) -> None:
        self._doing = doing
        self._printed = time.monotonic()
        print(f"[{self._printed - self._began:4.0f} s] {doing}", flush=True)

    def _again(self) -> None:
        while True:
            time.sleep(1.0)
            if time.monotonic() - self._printed > _REPORT_EVERY_S:
                self.say(self._doing)


def python() -> str:
    """The environment's interpreter."""
    return str(VENV / ("Scripts" if os.name == "nt" else "bin") / "python")


def site_packages() -> Path:
    """Where the environment's packages are."""
    return next(VENV.glob("lib/python3.*/site-packages"))


def make_environment(progress: Progress) -> None:
    """`.venv` with this interpreter, unless it is there."""
    tell = "import pip, sys; print(sys.base_prefix, sys.version)"
    try:
        here = subprocess.run([python(), "-I", "-c", tell], capture_output=True, text=True)
        if here.stdout.strip() == f"{sys.base_prefix} {sys.version}":
            return
    except OSError:
        pass
    progress.say(f"making .venv with Python {platform.python_version()} ({sys.executable})")
    venv.create(VENV, clear=True, with_pip=True, symlinks=os.name != "nt")


def remove_half_installed() -> None:
    """Packages whose installation did not end, which pip would take for whole.

    pip writes the file INSTALLER last; a name with ~ is a package that it was about to replace.
    """
    packages = site_packages()
    for found in (*packages.glob("*.dist-info"), *packages.glob("~*")):
        if found.name.startswith("~") or not (found / "INSTALLER").is_file():
            shutil.rmtree(found, ignore_errors=True)


def pip(progress: Progress, doing: str, *arguments: str, count: int = 1) -> None:
    """`pip install` of pinned packages; raises `SetupError`."""
    progress.say(doing)
    command = [python(), "-I", "-m", "pip", "install", "--no-deps", "--no-compile", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar", "off", "--retries", "2"]
    started = subprocess.Popen(
        [*command, *arguments], cwd=ROOT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    lines = []
    seen = 0
    assert started.stdout is not None
    for line in started.stdout:
        lines.append(line.rstrip())
        seen += line.startswith("Collecting ")
        large = re.search(r"(?:Downloading|cached) (\S+?)-\d\S* \((\d{2,}\S* MB|\S+ GB)\)", line)
        if large:
            progress.say(f"package {seen} of {count}: {large[1]}, {large[2]}")
        elif line.startswith("Installing collected packages"):
            progress.say(f"unpacking {count} package{'s' * (count > 1)}")
    if started.wait() != 0:
        raise SetupError(reason("\n".join(lines)))


def reason(output: str) -> str:
    """One sentence on why pip failed, from what it printed."""
    again = "then run make again: it goes on where it stopped"
    if "No space left on device" in output or "Disk quota exceeded" in output:
        free = shutil.disk_usage(VENV.parent).free / 1e9
        return (
            f"the disk is full: {free:.1f} GB are free here, serving needs 1.5 and the tests 3 "
            f"(pip also writes to its cache and to TMPDIR); free some, {again}"
        )
    if _NO_NETWORK.search(output):
        return (
            "the package index cannot be reached: check the network, or the proxy (HTTPS_PROXY) "
            f"and the index (PIP_INDEX_URL) if you need them, {again}"
        )
    missing = re.search(r"No matching distribution found for (\S+)", output)
    if missing:
        return (
            f"the index has no {missing[1]} ready for Python {platform.python_version()} on "
            f"{platform.system()} {platform.machine()}, and nothing is compiled here: see the "
            "table of platforms in README.md, or name another Python: make PYTHON=python3.12 serve"
        )
    errors = [line for line in output.splitlines() if line.startswith("ERROR:")]
    last = (errors or output.splitlines() or ["pip ended without a word"])[0]
    return f"pip failed: {last.removeprefix('ERROR:').strip()}; mend that, {again}"


def has_gpu() -> bool:
    """Whether there is an NVIDIA GPU, also in WSL."""
    tool = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path="/usr/lib/wsl/lib")
    return tool is not None and subprocess.run([tool, "-L"], capture_output=True).returncode == 0


def torch_index(progress: Progress) -> list[str]:
    """Options of pip for PyTorch's CPU build: on Linux the default index has the CUDA build."""
    if platform.system() != "Linux":
        return []
    try:
        with urllib.request.urlopen(f"{CPU_INDEX}/torch/", timeout=5):  # noqa: S310 - https
            return ["--extra-index-url", CPU_INDEX]
    except (urllib.error.URLError, OSError) as error:
        why = getattr(error, "reason", error)
        progress.say(f"{CPU_INDEX} cannot be reached ({why}): PyTorch from pip's own index")
        return []


def needs_cuda() -> bool:
    """Whether the installed PyTorch is a CUDA build, which does not load without its libraries."""
    version = (site_packages() / "torch" / "version.py").read_text()
    return re.search(r"^cuda\b.*=\s*None", version, re.MULTILINE) is None


def pinned(*locks: Path) -> list[str]:
    """The lines of these lists, each once."""
    lines = [line for lock in locks for line in lock.read_text().splitlines()]
    return list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))


def install(progress: Progress, kind: str) -> None:
    """The packages of `serve`, `dev` or `dev-all`, and the project itself."""
    needed = pinned(LOCKS["cpu" if kind == "serve" else kind])
    torch = [line for line in needed if re.match(r"torch(vision)?==", line)]
    gpu = has_gpu()
    index = [] if gpu else torch_index(progress)
    pip(progress, f"PyTorch, {'with CUDA' if gpu else 'for the CPU'}", "--only-binary=:all:",
        *index, *torch, count=len(torch))  # fmt: skip
    if needs_cuda():
        if not gpu:
            progress.say("this index has only the CUDA build of PyTorch: gigabytes of libraries")
        needed = list(dict.fromkeys([*needed, *pinned(LOCKS["gpu"])]))
    rest = [line for line in needed if line not in torch]
    listed = VENV / "packages.txt"
    listed.write_text("\n".join(rest) + "\n")
    pip(progress, f"{len(rest)} packages", "--only-binary=:all:", "--requirement", str(listed),
        count=len(rest))  # fmt: skip
    # PyTorch's own test programs: 80 MB.
    shutil.rmtree(site_packages() / "torch" / "test", ignore_errors=True)
    pip(progress, "sdpose itself", "--no-index", "--no-build-isolation", "--editable", ".")
    if kind == "dev-all":
        try:
            pip(progress, HELM, "--only-binary=:all:", "--ignore-requires-python", "--upgrade",
                "--target", str(VENV / "helm"), HELM)  # fmt: skip
        except SetupError as error:
            progress.say(f"without Helm, so the tests of the chart are left out: {error}")


def try_it(progress: Progress) -> None:
    """Loads what serving needs."""
    progress.say("loading it once")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    tried = subprocess.run(
        [python(), "-c", LOADED], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if tried.returncode:
        last = (tried.stderr.strip() or "it ended without a word").splitlines()[-1]
        raise SetupError(f"what was installed does not load ({last}): make clean, then try again")


def main(kind: str) -> int:
    """Sets up; returns the exit status."""
    progress = Progress()
    progress.say(f"setting up .venv for {kind}, once; a minute or two. Ctrl-C is safe")
    try:
        make_environment(progress)
        remove_half_installed()
        install(progress, kind)
        try_it(progress)
    except SetupError as error:
        print(f"set-up: {error}.", file=sys.stderr)
        return 1
    except (OSError, subprocess.CalledProcessError) as error:
        output = getattr(error, "stdout", None) or b""
        text = f"{error} {output.decode(errors='replace')}"
        print(f"set-up: {reason(text)}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("set-up: interrupted; run make again, it goes on where it stopped.", file=sys.stderr)
        return 130
    progress.say("ready")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
