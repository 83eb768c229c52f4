"""Importing ultralytics without its side effects.

On import ultralytics looks up two public host names (which hangs for seconds without a network),
and writes to standard output, where ``sdpose predict`` writes its results. Both can be switched off
by environment variables that it reads at import time.

It also replaces ``PIL.Image.open`` with its own function, which reacts to an unreadable file by
installing a package with pip: any client could trigger that in a service by sending such a file.
Pillow's own function is restored.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
from types import ModuleType

import PIL.Image

_LOCK = threading.Lock()
_QUIET = {"YOLO_VERBOSE": "false", "YOLO_OFFLINE": "true"}


def ultralytics_tasks() -> ModuleType:
    """``ultralytics.nn.tasks``, imported quietly; its messages go to standard error."""
    with _LOCK:
        if "ultralytics" not in sys.modules:
            open_image = PIL.Image.open
            before = {name: os.environ.get(name) for name in _QUIET}
            os.environ.update(_QUIET)
            try:
                importlib.import_module("ultralytics.utils")  # reads the variables
            finally:
                PIL.Image.open = open_image
                for name, value in before.items():
                    if value is None:
                        os.environ.pop(name, None)
                    else:
                        os.environ[name] = value
            for handler in logging.getLogger("ultralytics").handlers:
                if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
                    handler.setStream(sys.stderr)
        return importlib.import_module("ultralytics.nn.tasks")
