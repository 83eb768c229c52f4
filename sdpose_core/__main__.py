"""``python -m sdpose_core``: the same command as ``sdpose``."""

from __future__ import annotations

from importlib.metadata import entry_points


def main() -> None:
    """Run the installed ``sdpose`` command; without arguments it prints its help."""
    # By its entry point, as this package imports nothing of the service.
    (command,) = entry_points(group="console_scripts", name="sdpose")
    command.load()()


if __name__ == "__main__":
    main()
