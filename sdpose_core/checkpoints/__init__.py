"""Students on disk: strict loading, self-describing files, the published checkpoints."""

from sdpose_core.checkpoints.catalog import (
    DEFAULT_STUDENT,
    checkpoint_digest,
    find_checkpoint,
    load_student,
    trained_path,
    training_facts,
)
from sdpose_core.checkpoints.files import (
    Checkpoint,
    CheckpointError,
    build_student,
    read_checkpoint,
    save_student,
)

__all__ = [
    "DEFAULT_STUDENT",
    "Checkpoint",
    "CheckpointError",
    "build_student",
    "checkpoint_digest",
    "find_checkpoint",
    "load_student",
    "read_checkpoint",
    "save_student",
    "trained_path",
    "training_facts",
]
