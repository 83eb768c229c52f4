"""What each of two processes of one run does: ``python -m tests.train.two_processes FOLDER``.

Started as ``torchrun`` starts them; ``test_processes.py`` sets its variables and reads the results.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from sdpose_core.data.augment import AugmentConfig
from sdpose_core.train.loop.hardware import close_process_group
from sdpose_core.train.loop.run import prepare
from sdpose_core.train.loop.synchronise import MAX_STEPS_BETWEEN
from sdpose_core.train.recipe.config import (
    DataConfig,
    LossConfig,
    OptimiserConfig,
    StageConfig,
    TrainConfig,
)

# So many that a wish of the second step is heard before the last, however quick the machine is.
STEPS = MAX_STEPS_BETWEEN + 10


def recipe(folder: Path) -> TrainConfig:
    """A tiny run on the COCO set in ``folder``, from the student there."""
    return TrainConfig(
        start=str(folder / "shallow.safetensors"),
        data=DataConfig(
            coco_annotations=str(folder / "set" / "people.json"),
            coco_images=str(folder / "set" / "images"),
            coco_cache=str(folder / "crops"),
            workers=1,
            augment=AugmentConfig(),
        ),
        loss=LossConfig(tokens=0.0),
        optimiser=OptimiserConfig(name="adamw", clip=5.0, ema=0.9),
        stages=(StageConfig(batch=1, steps=STEPS, warmup_steps=0),),
        accelerator="cpu",
        devices=2,
        threads=1,
        precision="32-true",
    )


def main() -> None:
    """Train whole; train again until the second process wants to stop; resume that to the end."""
    folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    said: list[str] = []
    config = recipe(folder)
    prepare(config, folder / "whole", say=said.append).run()
    trainer = prepare(config, folder / "parts")
    step = trainer.step

    def step_and_stop(*given: object) -> object:
        if rank == 1 and trainer.counters.step == 1:
            trainer.stop()
        return step(*given)  # type: ignore[arg-type]

    trainer.step = step_and_stop  # type: ignore[method-assign, assignment]
    trainer.run()
    stopped = trainer.counters.step
    trainer = prepare(config, folder / "parts", resume=True)
    resumed = trainer.counters.step
    trainer.run()
    result = {
        "said": said,
        "stopped": stopped,
        "resumed": resumed,
        "ended": trainer.counters.step,
        "samples": trainer.counters.samples,
    }
    (folder / f"result-{rank}.json").write_text(json.dumps(result))
    close_process_group()


if __name__ == "__main__":
    main()
