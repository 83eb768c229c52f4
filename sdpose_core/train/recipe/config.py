"""The configuration of a training run: one frozen value that is printed and saved with the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, field, fields, replace
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from sdpose_core.data.augment import AugmentConfig
from sdpose_core.messages import first_complaint

_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, config=_STRICT)
class DataConfig:
    """Where samples come from and how often each is shown.

    ``shards``: files, folders or globs of tar shards; or ``coco_annotations`` with ``coco_images``:
    a COCO keypoint set as published, packed once into ``coco_cache`` (the run's folder if not
    given). ``source_weights``: factor of a source's samples, 1 if not named. ``dev_annotations``
    and ``dev_images``: a COCO set to score on while training.
    ``on_device``: crops are decoded once and held in the device's memory, 289 kB each; ``workers``
    threads then only draw the views. With several processes, each holds all of them.
    ``kept_views``: so many views are drawn, and the backbone's last stage and the heads alone are
    trained on them; what these take is computed once. 0: all is trained, on ever new views.
    """

    shards: tuple[str, ...] = ()
    coco_annotations: str | None = None
    coco_images: str | None = None
    coco_cache: str | None = None
    source_weights: Mapping[str, float] = field(default_factory=dict)
    dev_annotations: str | None = None
    dev_images: str | None = None
    workers: int = 4
    on_device: bool = False
    kept_views: int = 0
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass(frozen=True, config=_STRICT)
class LossConfig:
    """The terms of the loss; see ``sdpose_core.train.objective.losses``.

    ``tokens``: weight of the token distillation between cycles.
    """

    tokens: float = 5e-6


@dataclass(frozen=True, config=_STRICT)
class OptimiserConfig:
    """``clip``: maximum gradient norm, 0 = none. ``ema``: decay of the averaged weights, 0 = none.

    The decay of an average grows with the steps taken, min(ema, (1 + n) / (10 + n)).
    ``head_rate``: the rate of everything except the backbone, in units of the stage's; for random
    weights behind a trained backbone. Without a transformer that is the layer of the heatmaps.
    ``start_share``: so far the students that are scored and kept lie on the way back to the start,
    but for the weights of ``new_keypoints``.
    """

    name: Literal["adam", "adamw"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    clip: float = 0.0
    ema: float = 0.0
    head_rate: float = 1.0
    start_share: float = 0.0
    new_keypoints: tuple[str, ...] = ()


@dataclass(frozen=True, config=_STRICT)
class StageConfig:
    """One part of a run with its own batch, length and rate.

    Length: exactly one of ``steps``, ``epochs`` and ``minutes`` (of computing, pauses left out).
    ``batch`` is per process. ``schedule`` shapes the rate after a linear warm-up of
    ``warmup_steps`` from ``rate * warmup_start``: "steps" multiplies by 0.1 at each of
    ``milestones`` (shares of the stage), "hold_cosine" keeps the rate for the share ``hold`` and
    falls to ``final * rate`` along a cosine.
    """

    batch: int = 64
    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    rate: float = 1e-3
    schedule: Literal["steps", "hold_cosine"] = "hold_cosine"
    milestones: tuple[float, ...] = (200 / 300, 260 / 300)
    hold: float = 0.5
    final: float = 0.02
    warmup_steps: int = 500
    warmup_start: float = 0.001

    def __post_init__(self) -> None:
        given = [n for n in ("steps", "epochs", "minutes") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(f"a stage needs exactly one of steps, epochs and minutes, got {given}")
        if self.batch < 1:
            raise ValueError(f"stage.batch: expected at least 1, got {self.batch}")
        for name, length in (("epochs", self.epochs), ("minutes", self.minutes)):
            if length is not None and length <= 0:
                raise ValueError(f"stage.{name}: expected more than 0, got {length}")


@dataclass(frozen=True, config=_STRICT)
class TrainConfig:
    """A whole run.

    ``student``: preset to train; ``start``: a checkpoint to begin with. Without one ``init`` draws
    the weights: "compact" from a truncated normal, which learns faster, "published" as in the
    paper's code; and ``backbone_start`` is a file of a pretrained backbone, or a preset with one;
    matching tensors are used.
    ``devices`` is per node; ``batch`` of a stage is per device. ``precision``: "auto" is bf16 where
    the hardware computes in it, float32 elsewhere. A development score every ``evaluate_minutes``
    of computing, or every ``evaluate_epochs`` if given.
    """

    name: str = "run"
    student: str = "sdpose-t"
    start: str | None = None
    init: Literal["compact", "published"] = "compact"
    skeleton: str = "coco17"
    backbone_start: str | None = None
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    stages: tuple[StageConfig, ...] = (StageConfig(epochs=300),)
    accelerator: str = "auto"
    devices: int | str = "auto"
    nodes: int = 1
    threads: int = 0
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    evaluate_minutes: float = 10.0
    evaluate_epochs: float | None = None
    checkpoint_minutes: float = 5.0
    log_every: int = 20

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("a run needs at least one stage")
        if self.log_every < 1:
            raise ValueError(f"log_every: expected at least 1, got {self.log_every}")
        if self.evaluate_epochs is not None and self.evaluate_epochs <= 0:
            raise ValueError(f"evaluate_epochs: expected more than 0, got {self.evaluate_epochs}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Raises ``ValueError`` naming the field that is unknown or of the wrong type."""
        try:
            # As JSON, whose lists may be tuples even where types are strict.
            return TypeAdapter(cls).validate_json(json.dumps(values, default=str))
        except ValidationError as error:
            raise ValueError(_sentence(error)) from None


def within_minutes(config: TrainConfig, minutes: float) -> TrainConfig:
    """The recipe shaped to ``minutes`` of computing.

    Stages given in minutes keep their proportions; if none is, every stage gets an equal share.
    The rate's schedule follows the new length.
    """
    if minutes <= 0:
        raise ValueError(f"minutes: expected more than 0, got {minutes}")
    lengths = [stage.minutes for stage in config.stages]
    known = [length for length in lengths if length is not None]
    if len(known) != len(lengths):
        known = [1.0] * len(lengths)
    shares = [length / sum(known) for length in known]
    stages = tuple(
        replace(stage, steps=None, epochs=None, minutes=minutes * share)
        for stage, share in zip(config.stages, shares, strict=True)
    )
    return replace(config, stages=stages)


def _sentence(error: ValidationError) -> str:
    """The first mistake: where it is, what was expected and what was given."""
    first = error.errors()[0]
    place, reason = first_complaint(error)
    if first["type"] == "unexpected_keyword_argument":
        *tables, name = first["loc"]
        table: Any = TrainConfig()
        for part in tables:  # all stages have the same fields
            table = table[0] if isinstance(part, int) else getattr(table, part)
        known = ", ".join(sorted(each.name for each in fields(table)))
        return f"{'.'.join(map(str, tables)) or 'config'}: unknown {name}; expected {known}"
    if first["type"] == "value_error":  # a check of ours, which names the field itself
        return reason
    return f"{place or 'config'}: {reason}, got {first['input']!r}"
