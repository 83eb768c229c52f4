"""A window of the desktop that shows images as they come."""

from __future__ import annotations

import os
import sys
import threading

from sdpose_core.types import Image


class NoWindowError(RuntimeError):
    """There is no display, or no Tk; the message names which."""


class Window:
    """Made and shown by the main thread; q, Esc or its button close it.

    Raises `NoWindowError`.
    """

    def __init__(self, title: str) -> None:
        # Tk and not OpenCV, whose server build has no windows.
        try:
            import tkinter
        except ImportError:
            raise NoWindowError("this Python has no tkinter") from None
        try:
            self._root = tkinter.Tk(className="sdpose")
        except tkinter.TclError as error:
            raise NoWindowError(f"no display: {error}") from None
        self._root.title(title)
        self._photo = tkinter.PhotoImage(width=1, height=1)
        self._label = tkinter.Label(self._root, image=self._photo, borderwidth=0)
        self._label.pack()
        self.closed = False
        for key in ("q", "<Escape>"):
            self._root.bind(key, lambda _: self.close())
        self._root.protocol("WM_DELETE_WINDOW", self.close)

    def show(self, image: Image) -> None:
        """RGB uint8 `(height, width, 3)`."""
        if self.closed:
            return
        height, width = image.shape[:2]
        self._photo.configure(
            data=b"P6 %d %d 255\n" % (width, height) + image.tobytes(), width=width, height=height
        )
        self.poll()

    def poll(self) -> bool:
        """Answers to keys and mouse; whether it is closed. In other threads than the main one it
        only looks.
        """
        if not self.closed and threading.current_thread() is threading.main_thread():
            self._root.update()
        return self.closed

    def close(self) -> None:
        """Ends it; again does nothing."""
        if not self.closed:
            self.closed = True
            self._root.destroy()


def open_window(title: str, *, show: bool | None) -> Window | None:
    """A window if `show`, or, if that is None, if there may be a display.

    Raises `NoWindowError` if `show` and there can be none.
    """
    desktop = sys.platform != "linux" or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    if show is False or (show is None and not desktop):
        return None
    try:
        return Window(title)
    except NoWindowError:
        if show:
            raise
        return None
