"""The training loop: stages, steps, scores, checkpoints, resuming.

Everything random is drawn from the seed and the position in the run, so a run that was stopped
and resumed sees the same samples and the same views as one that was not.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdpose_core.checkpoints import save_student
from sdpose_core.data.shards import CropSet
from sdpose_core.model import Student
from sdpose_core.train.loop.feed import StepInputs
from sdpose_core.train.loop.hardware import (
    choose_precision,
    device_kind,
    keep_freed_memory,
    make_fabric,
)
from sdpose_core.train.loop.initialise import check_development, first_student
from sdpose_core.train.loop.kept import KeptSamples
from sdpose_core.train.loop.logs import RunLog, progress_line, score_line
from sdpose_core.train.loop.results import (
    averaged_copy,
    best_kept,
    reject_broken_weights,
    run_facts,
)
from sdpose_core.train.loop.samples import Samples
from sdpose_core.train.loop.scoring import AP, OKS, DevelopmentSet, development_scores
from sdpose_core.train.loop.state import read_state, student_of, write_config, write_state
from sdpose_core.train.loop.synchronise import Agreement, ComputeClock
from sdpose_core.train.objective.objective import Objective, total
from sdpose_core.train.optim.ema import WeightAverage
from sdpose_core.train.optim.optimiser import make_optimiser, set_rate
from sdpose_core.train.optim.schedule import learning_rate, score_due, stage_progress
from sdpose_core.train.recipe.config import StageConfig, TrainConfig
from sdpose_core.train.recipe.progress import Counters
from sdpose_core.train.transfer import move_towards


class Trainer:
    """One run in one folder; with ``resume`` it continues from the folder's ``state.pt``.

    The folder holds ``config.json``, ``log.csv``, ``tensorboard/``, ``state.pt``,
    ``last.safetensors`` and, once scored, ``best.safetensors`` (the best development score).

    Raises:
        ValueError: the config does not match this machine, its start or the folder's state, or is
            inconsistent.
        FileNotFoundError: ``resume`` without a state.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        crops: CropSet,
        dev: DevelopmentSet | None = None,
        *,
        resume: bool = False,
    ) -> None:
        self.config = config
        self.folder = folder
        self.dev = dev
        self.counters = Counters()
        self.history: list[dict[str, float]] = []
        self.resumed = resume
        if config.threads > 0:
            torch.set_num_threads(config.threads)
        if device_kind(config.accelerator) == "cpu":
            keep_freed_memory()
        self.precision = choose_precision(config)
        self.fabric = make_fabric(config, self.precision)
        self.fabric.launch()
        self.fabric.seed_everything(config.seed, workers=False)
        parts: dict[str, Any] = {}
        if resume:
            self.counters, parts = read_state(folder)
        if "student" in parts:
            student = Student(student_of(parts))
            self.begun = f"resumes after step {self.counters.step}"
        else:
            student, self.begun = first_student(config)
        if dev is not None:
            check_development(student.config, dev.regions.view)
        make = KeptSamples if config.data.kept_views else Samples
        self.samples = make(config, crops, self.fabric, student)
        shown = (self.samples.crops.keypoints[..., 2] > 0).any(axis=0)
        kept = np.flatnonzero(~shown).tolist() if config.start else []
        self._start = self._first_again() if kept or config.optimiser.start_share else None
        start = self._start if kept else None
        self.objective = Objective(student.train(), config.loss, start, kept)
        if config.data.kept_views:
            student.freeze_early()
        self.objective.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimiser = make_optimiser(self.objective, config)
        self.wrapped, self.optimiser = self.fabric.setup(self.objective, optimiser)
        ema = config.optimiser.ema
        self.average = WeightAverage(self.objective.student, ema) if ema > 0 else None
        self.log: RunLog | None = None
        self.stopping = self._stop_requested = False
        if resume:
            try:
                self._restore(parts)
            except (KeyError, RuntimeError) as error:
                raise ValueError(
                    f"{folder}: its state does not match its config ({error})"
                ) from error

    def stop(self) -> None:
        """Make the loop end after the current step and save its state; callable from any thread.

        ``stopping`` becomes true once all processes know.
        """
        self._stop_requested = True

    def _first_again(self) -> Student:
        """The start, which keypoints without a label and the students that are kept refer to."""
        start, _ = first_student(self.config)
        return start.to(self.fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    @property
    def finished(self) -> bool:
        """Whether the last stage has ended."""
        return self.counters.stage >= len(self.config.stages)

    @property
    def student(self) -> Student:
        """The student that is being trained."""
        return self.objective.student

    def _restore(self, parts: dict[str, Any]) -> None:
        self.objective.load_state_dict(parts["objective"])
        self.optimiser.load_state_dict(parts["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(parts["average"])
        if parts.get("precision"):
            self.fabric.strategy.precision.load_state_dict(parts["precision"])
        # A process killed between the two files has a better student than its state records.
        counters = self.counters
        best = max((counters.best, counters.best_oks), best_kept(self.folder))
        counters.best, counters.best_oks = best

    def run(self, *, stop_after_steps: int | None = None) -> None:
        """Train to the end of the last stage, or for ``stop_after_steps`` steps of this call.

        Raises:
            ValueError: the weights are no longer finite; the files are unchanged.
        """
        with ExitStack() as stack:
            if self.fabric.is_global_zero:
                self.folder.mkdir(parents=True, exist_ok=True)
                if not self.resumed:
                    write_config(self.folder, self.config)
                self.log = stack.enter_context(RunLog(self.folder, self.counters.step or -1))
                self.log.line(self.begun)
                self.log.line(
                    f"{len(self.samples.crops)} crops, {self.samples.stream.pass_length} per pass, "
                    f"{self.precision} on {self.fabric.device} x {self.fabric.world_size}"
                )
                if self.dev is None:
                    self.log.line("no development set: nothing is scored, the last student is kept")
            if self.config.start and self.dev is not None and not self.resumed:
                self._score()  # what is trained must become better than this
            self._run_stages(stop_after_steps)

    def _run_stages(self, remaining: int | None) -> None:
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
            self.counters.stage_seconds = self.counters.stage_scored = 0.0
            if self.counters.stage < len(self.config.stages):
                self._save()
        if self.finished:
            self._score(finished=True)
        self._save()

    def _run_stage(self, stage: StageConfig, limit: int | None) -> int:
        """Run a stage to its end or for ``limit`` steps; returns the steps made."""
        counters, fabric, config = self.counters, self.fabric, self.config
        inputs = self.inputs(stage)
        clock = ComputeClock(counters.stage_seconds)
        agreed = Agreement(fabric, clock)
        begun = counters.seconds - counters.stage_seconds
        saved = clock.seconds
        sums: dict[str, Tensor | float] = defaultdict(float)
        summed = made = 0
        total_samples = stage.batch * fabric.world_size
        while limit is None or made < limit:
            agreed.before_step(self._stop_requested)
            if agreed.stopping:
                self.stopping = True
                break
            if score_due(config, counters, agreed.seconds, self.samples.stream.pass_length):
                self._score()
                counters.scored_samples = counters.samples
                counters.stage_scored = saved = agreed.seconds
                self._save()
            elif agreed.seconds - saved >= 60 * config.checkpoint_minutes:
                self._save()
                saved = agreed.seconds
            progress = stage_progress(
                stage,
                counters.stage_step,
                agreed.seconds,
                counters.stage_samples,
                self.samples.stream.pass_length,
            )
            if progress >= 1:
                break
            start = time.perf_counter()
            rate = learning_rate(stage, counters.stage_step, progress)
            terms = self.step(next(inputs), rate)
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
        inputs.close()
        ended = (limit is None or made < limit) and not self.stopping
        if ended and counters.stage + 1 < len(config.stages):
            self._score()
        return made

    def inputs(self, stage: StageConfig) -> Generator[StepInputs, None, None]:
        """The inputs of the next steps of a stage, from the run's current position."""
        return self.samples.inputs(stage, self.counters.samples, self.counters.step)

    def step(self, inputs: StepInputs, rate: float) -> dict[str, Tensor]:
        """One optimiser step on one batch; returns the loss terms."""
        config = self.config
        images, target, weights = self.render(inputs)
        set_rate(self.optimiser, rate)
        terms: dict[str, Tensor] = self.wrapped(images, target, weights)
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

    def render(self, inputs: StepInputs) -> tuple[Tensor, Tensor, Tensor]:
        """The network's inputs, targets and weights of one batch."""
        return self.samples.render(inputs)

    def _report(
        self, sums: dict[str, Tensor | float], count: int, rate: float, progress: float
    ) -> None:
        if self.log is None:
            return
        means = {name: float(value) / count for name, value in sums.items()}
        speed = self.counters.stage_samples / max(1e-9, self.counters.stage_seconds)
        values = {**{f"train/{k}": v for k, v in means.items()}, "rate": rate, "speed": speed}
        self.log.scalars(values, self.counters)
        share = (self.counters.stage + progress) / len(self.config.stages)
        self.log.progress(progress_line(self.counters, means["loss"], rate, speed), share)

    def averaged_student(self) -> Student:
        """A copy of the student with the averaged weights, as saved and scored."""
        copied = averaged_copy(self.student, self.average, self.fabric.device)
        settings = self.config.optimiser
        if settings.start_share and self._start is not None:
            move_towards(copied, self._start, settings.start_share, settings.new_keypoints)
        return copied

    def _score(self, *, finished: bool = False) -> None:
        """Score the averaged student and keep the best; only the first process works.

        The state must be saved right after, so that it records the student that was kept.
        """
        reject_broken_weights(self.objective, self.fabric, self.counters.step, self.folder)
        if self.fabric.is_global_zero:
            student = self.averaged_student()
            values: dict[str, float] = {}
            if self.dev is not None:
                values = development_scores(student, self.dev)
                best = values[AP], values[OKS]
                if best > (self.counters.best, self.counters.best_oks):
                    self.counters.best, self.counters.best_oks = best
                    self._export(student, "best", values)
            self._export(student, "last", {**values, "finished": float(finished)})
            self.history.append({"step": float(self.counters.step), **values})
            if self.log is not None and values:
                self.log.scalars(values, self.counters)
                self.log.line(score_line(self.counters, values))
        self.fabric.barrier()

    def _export(self, student: Student, name: str, scores: dict[str, float]) -> None:
        facts = run_facts(
            self.config,
            self.counters,
            crops=len(self.samples.crops),
            averaged=self.average is not None,
            scores=scores,
        )
        save_student(student, self.folder / f"{name}.safetensors", facts)

    def _save(self) -> None:
        reject_broken_weights(self.objective, self.fabric, self.counters.step, self.folder)
        if self.fabric.is_global_zero:
            parts: dict[str, Any] = {
                "student": self.student.config.to_dict(),
                "skeleton": self.student.config.skeleton.to_dict(),
                "objective": self.objective.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "precision": self.fabric.strategy.precision.state_dict(),
            }
            if self.average is not None:
                parts["average"] = self.average.state_dict()
            write_state(self.folder, self.counters, parts)
        self.fabric.barrier()
