"""`python -m tools.settings_table`: the table of settings in docs/operations.md."""

from __future__ import annotations

import sys

from service.settings import PREFIX, Settings


def settings_table() -> str:
    """All settings with default and meaning, as Markdown."""
    lines = ["| setting | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = field.default
        shown = "unset" if default in (None, frozenset()) else default
        lines.append(f"| `{PREFIX}{name.upper()}` | {shown} | {field.description} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(settings_table() + "\n")
