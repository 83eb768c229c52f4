"""Students as files for other runtimes."""

from sdpose_core.export.export import FORMATS, export_student, files_of, format_of

__all__ = ["FORMATS", "export_student", "files_of", "format_of"]
