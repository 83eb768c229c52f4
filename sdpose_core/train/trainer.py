"""The training loop: stages, steps, scores, checkpoints, resuming.

Everything random is drawn from the seed and the position in the run, so a run that was stopped
and resumed sees the same samples and the same views as one that was not.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from sdpose_core.checkpoints import load_student, save_student
from sdpose_core.data.augment import draw_views, render_views
from sdpose_core.data.batches import (
    CropBatch,
    SampleStream,
    iterate_batches,
    sample_weights,
)
from sdpose_core.data.shards import VIEW_SIZE, CropSet
from sdpose_core.heatmaps import encode
from sdpose_core.model import PRESETS as STUDENTS
from sdpose_core.model import Student
from sdpose_core.train.clock import ComputeClock
from sdpose_core.train.config import StageConfig, TrainConfig
from sdpose_core.train.ema import WeightAverage
from sdpose_core.train.logs import RunLog
from sdpose_core.train.memory import keep_freed_memory
from sdpose_core.train.muon import Muon, hidden_matrices
from sdpose_core.train.objective import Objective, total
from sdpose_core.train.schedule import learning_rate, stage_progress
from sdpose_core.train.scoring import DevelopmentSet, development_score, resize_views
from sdpose_core.train.state import Counters, read_state, write_state
from sdpose_core.types import Regions


def choose_precision(config: TrainConfig, device: torch.device) -> str:
    """The precision of a run: "auto" becomes bf16 where the hardware computes in it."""
    if config.precision != "auto":
        return config.precision
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    fast = bool(torch.cpu.get_capabilities().get("avx512_bf16"))
    return "bf16-mixed" if device.type == "cpu" and fast else "32-true"


def make_optimiser(objective: Objective, config: TrainConfig) -> torch.optim.Optimizer:
    """Adam, AdamW or Muon; the latter two decay only matrices and convolutions."""
    settings = config.optimiser
    hidden = hidden_matrices(objective.student) if settings.name == "muon" else []
    taken = {id(p) for p in hidden}
    rest = [p for p in objective.parameters() if p.requires_grad and id(p) not in taken]
    decayed = [p for p in rest if p.ndim > 1]
    plain = [p for p in rest if p.ndim <= 1]
    rate = config.stages[0].rate
    if settings.name == "adam":
        return torch.optim.Adam(
            [*decayed, *plain], lr=rate, betas=settings.betas, weight_decay=settings.weight_decay
        )
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=settings.betas)
    for group in groups:
        group["muon"] = False
    groups.append(
        {
            "params": hidden,
            "weight_decay": settings.weight_decay,
            "muon": True,
            "scale": settings.muon_scale,
        }
    )
    return Muon(groups, lr=rate, betas=settings.betas)


class Trainer:
    """One run in one folder.

    The folder holds ``config.json``, ``log.csv``, ``tensorboard/``, ``state.pt``,
    ``last.safetensors`` and, once scored, ``best.safetensors`` (the best development score). The
    student serves at the size of the last stage: crops are averaged down to it.
    """

    def __init__(
        self, config: TrainConfig, folder: Path, crops: CropSet, dev: DevelopmentSet | None = None
    ) -> None:
        self.config = config
        self.folder = folder
        self.crops = crops
        self.dev = dev
        self.counters = Counters()
        self.history: list[dict[str, float]] = []
        folder.mkdir(parents=True, exist_ok=True)

        if config.threads > 0:
            torch.set_num_threads(config.threads)
        try:
            probe = Fabric(accelerator=config.accelerator, devices=1)
        except (MisconfigurationException, ModuleNotFoundError) as error:
            raise ValueError(f"accelerator {config.accelerator!r}: {error}") from error
        precision = choose_precision(config, probe.device)
        if probe.device.type == "cpu":
            keep_freed_memory()
        self.precision = precision
        self.fabric = Fabric(
            accelerator=config.accelerator,
            devices=config.devices,
            num_nodes=config.nodes,
            precision=precision,  # type: ignore[arg-type]
        )
        self.fabric.launch()
        self.fabric.seed_everything(config.seed, workers=False)
        self.objective = Objective(self._start_student(), config.loss)
        self.objective.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimiser = make_optimiser(self.objective, config)
        self.wrapped, self.optimiser = self.fabric.setup(self.objective, optimiser)
        self.average = (
            WeightAverage(self.objective.student, config.optimiser.ema)
            if config.optimiser.ema > 0
            else None
        )
        weights = sample_weights(crops, config.data.source_weights, config.data.human_factor)
        self.stream = SampleStream(weights, config.seed)
        self.log: RunLog | None = None
        self.stopping = False

    def stop(self) -> None:
        """Ask the loop to end after the present step and to save its state; from any thread."""
        self.stopping = True

    @property
    def student(self) -> Student:
        """The student that is being trained."""
        return self.objective.student

    def _start_student(self) -> Student:
        start = self.config.start
        student = load_student(start) if start else Student(STUDENTS[self.config.student])
        logits = self.config.loss.heatmap == "cross_entropy"
        # The last stage decides at which size the student serves.
        height, width = student.config.input_size
        last = self.config.stages[-1].size
        if height % last[0] or height // last[0] * last[1] != width:
            raise ValueError(
                f"the last stage's size {last} must be {(height, width)} divided by a whole number"
            )
        student.config = replace(
            student.config,
            heatmap_kind="logits" if logits else "gaussian",
            pool=height // last[0],
        )
        return student.train()

    def resume(self) -> None:
        """Continue from ``state.pt``; raises ``FileNotFoundError`` when there is none."""
        self.counters, parts = read_state(self.folder)
        self.objective.load_state_dict(parts["objective"])
        self.optimiser.load_state_dict(parts["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(parts["average"])

    def run(self, *, stop_after_steps: int | None = None) -> None:
        """Train to the end of the last stage, or for ``stop_after_steps`` steps of this call."""
        fabric = self.fabric
        if fabric.is_global_zero:
            self.log = RunLog(self.folder)
            (self.folder / "config.json").write_text(json.dumps(self.config.to_dict(), indent=1))
            self.log.line(
                f"{len(self.crops)} crops, {self.stream.pass_length} a pass, {self.precision} on "
                f"{fabric.device} x {fabric.world_size}"
            )
        remaining = stop_after_steps
        while self.counters.stage < len(self.config.stages):
            done = self._run_stage(self.config.stages[self.counters.stage], remaining)
            if self.stopping:
                break
            if remaining is not None:
                remaining -= done
                if remaining <= 0:
                    break
            self.counters.stage += 1
            self.counters.stage_step = self.counters.stage_samples = 0
            self.counters.stage_seconds = 0.0
        finished = self.counters.stage >= len(self.config.stages)
        self._save()
        if finished:
            self._score(self.config.stages[-1], finished=True)
        if self.log is not None:
            self.log.__exit__(None, None, None)

    def _run_stage(self, stage: StageConfig, limit: int | None) -> int:
        """Run a stage to its end or for ``limit`` steps; returns the steps made."""
        counters, fabric, config = self.counters, self.fabric, self.config
        batches = iterate_batches(
            self.crops,
            self.stream,
            start=counters.samples,
            batch_size=stage.batch,
            rank=fabric.global_rank,
            world=fabric.world_size,
            workers=config.data.workers,
        )
        clock = ComputeClock(counters.stage_seconds)
        begun = counters.seconds - counters.stage_seconds
        scored = saved = clock.seconds
        sums: dict[str, Tensor | float] = defaultdict(float)
        summed = made = 0
        total_samples = stage.batch * fabric.world_size
        while limit is None or made < limit:
            self._agree(clock)
            if self.stopping:
                break
            if clock.seconds - scored >= 60 * config.evaluate_minutes:
                self._score(stage)
                scored = clock.seconds
            if clock.seconds - saved >= 60 * config.checkpoint_minutes:
                self._save()
                saved = clock.seconds
            progress = stage_progress(
                stage,
                counters.stage_step,
                clock.seconds,
                counters.stage_samples,
                self.stream.pass_length,
            )
            if progress >= 1:
                break
            start = time.perf_counter()
            rate = learning_rate(stage, counters.stage_step, progress)
            terms = self.step(next(batches), stage, rate)
            for name, value in terms.items():
                sums[name] = sums[name] + value.detach()
            summed += 1
            made += 1
            counters.step += 1
            counters.stage_step += 1
            counters.samples += total_samples
            counters.stage_samples += total_samples
            clock.add(time.perf_counter() - start)
            counters.stage_seconds = clock.seconds
            counters.seconds = begun + clock.seconds
            if counters.step % config.log_every == 0:
                self._report(sums, summed, rate, progress)
                sums, summed = defaultdict(float), 0
        batches.close()  # type: ignore[attr-defined]
        ended = (limit is None or made < limit) and not self.stopping
        if ended and counters.stage + 1 < len(config.stages):
            self._score(stage)
        return made

    def _agree(self, clock: ComputeClock) -> None:
        """Give all processes the first one's clock, and any one's wish to stop."""
        if self.fabric.world_size == 1:
            return
        first = self.fabric.broadcast(clock.seconds)
        wishes = self.fabric.all_reduce(
            torch.tensor(float(self.stopping), device=self.fabric.device), reduce_op="sum"
        )
        clock.seconds = first
        assert isinstance(wishes, Tensor)
        self.stopping = bool(wishes.item() > 0)

    def step(self, batch: CropBatch, stage: StageConfig, rate: float) -> dict[str, Tensor]:
        """One optimiser step on one batch; returns the loss terms."""
        config = self.config
        images, target, weights = self.prepare(batch, stage.size)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        cycles = stage.cycles or self.student.config.train_cycles
        terms: dict[str, Tensor] = self.wrapped(images, target, weights, cycles)
        loss = total(terms)
        self.optimiser.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        if config.optimiser.clip > 0:
            self.fabric.clip_gradients(
                self.wrapped,
                self.optimiser,
                max_norm=config.optimiser.clip,
                error_if_nonfinite=False,
            )
        self.optimiser.step()
        if self.average is not None:
            self.average.update(self.student)
        return {"loss": loss, **terms}

    def prepare(self, batch: CropBatch, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Views (B, 3, *size), targets (B, 17, 64, 48) and weights (B, 17) on the device."""
        count, height, width = batch.images.shape[:3]
        regions = Regions(
            np.tile(np.array((width / 2, height / 2), np.float32), (count, 1)),
            np.tile(np.array(VIEW_SIZE, np.float32), (count, 1)),
        )
        rng = np.random.default_rng(
            (self.config.seed, 2, self.counters.step, self.fabric.global_rank)
        )
        data = self.config.data
        views = draw_views(batch.keypoints, regions, (width, height), data.augment, rng)
        device = self.fabric.device
        images = resize_views(
            render_views(torch.from_numpy(batch.images).to(device, non_blocking=True), views), size
        )
        confidence = np.where(views.confidence >= data.minimum_confidence, views.confidence, 0)
        joints = torch.from_numpy(views.joints / 4).to(device)
        target, weights = encode(joints, torch.from_numpy(confidence).to(device))
        if self.config.loss.heatmap == "cross_entropy":
            # A softmax has no way to say "outside": such joints teach nothing.
            limit = torch.tensor(target.shape[:1:-1], device=device) - 0.5
            weights = weights * ((joints > -0.5) & (joints < limit)).all(dim=2)
        return images.contiguous(memory_format=torch.channels_last), target, weights

    def _report(
        self, sums: dict[str, Tensor | float], count: int, rate: float, progress: float
    ) -> None:
        if self.log is None:
            return
        means = {name: float(value) / count for name, value in sums.items()}
        counters = self.counters
        speed = counters.stage_samples / max(1e-9, counters.stage_seconds)
        values = {**{f"train/{k}": v for k, v in means.items()}, "rate": rate, "speed": speed}
        self._write(values)
        share = (counters.stage + progress) / len(self.config.stages)
        self.log.progress(
            f"stage {counters.stage + 1} step {counters.step} samples {counters.samples} "
            f"loss {means['loss']:.4f} rate {rate:.2e} {speed:.1f} crops/s",
            share,
        )

    def _write(self, values: dict[str, float]) -> None:
        assert self.log is not None
        c = self.counters
        self.log.scalars(values, step=c.step, samples=c.samples, seconds=c.seconds, stage=c.stage)

    def averaged_student(self) -> Student:
        """A copy of the student with the averaged weights (its own where there is no average)."""
        copy = Student(self.student.config)
        state = self.average.values if self.average is not None else self.student.state_dict()
        copy.load_state_dict(state)
        copy.to(self.fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return copy.eval()

    def _score(self, stage: StageConfig, *, finished: bool = False) -> None:
        """Score the averaged student and keep the best; only the first process works."""
        if self.fabric.is_global_zero:
            student = self.averaged_student()
            values: dict[str, float] = {}
            if self.dev is not None:
                served = self.config.stages[-1].size
                for size in dict.fromkeys((served, stage.size)):
                    scores = development_score(
                        student,
                        self.dev,
                        size=None if size == served else size,
                        cycles=self.config.score_cycles,
                    )
                    name = f"{size[0]}x{size[1]}"
                    values[f"dev/oks_{name}"] = float(scores.mean())
                    values[f"dev/oks50_{name}"] = float((scores > 0.5).mean())
                    if scores.mean() > self.counters.best.get(name, -1.0):
                        self.counters.best[name] = float(scores.mean())
                        if size == served:
                            self._export(student, "best", values)
            self._export(student, "last", {**values, "finished": float(finished)})
            self.history.append({"step": float(self.counters.step), **values})
            if self.log is not None and values:
                self._write(values)
                self.log.line(
                    f"step {self.counters.step} samples {self.counters.samples} "
                    f"minutes {self.counters.seconds / 60:.1f} "
                    + " ".join(f"{k}={v:.4f}" for k, v in values.items())
                )
        self.fabric.barrier()

    def _export(self, student: Student, name: str, scores: dict[str, float]) -> None:
        config, counters = self.config, self.counters
        facts = {
            "run": config.name,
            "start": Path(config.start).name if config.start else None,
            "crops": len(self.crops),
            "steps": counters.step,
            "samples": counters.samples,
            "minutes": round(counters.seconds / 60, 1),
            "averaged": self.average is not None,
            "scores": scores,
            "config": {k: v for k, v in config.to_dict().items() if k not in ("data", "start")},
        }
        save_student(student, self.folder / f"{name}.safetensors", facts)

    def _save(self) -> None:
        if self.fabric.is_global_zero:
            parts: dict[str, Any] = {
                "objective": self.objective.state_dict(),
                "optimiser": self.optimiser.state_dict(),
            }
            if self.average is not None:
                parts["average"] = self.average.state_dict()
            write_state(self.folder, self.counters, parts)
        self.fabric.barrier()
