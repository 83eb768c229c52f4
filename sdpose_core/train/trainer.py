"""The training loop: stages, steps, scores, checkpoints, resuming.

Everything random is drawn from the seed and the position in the run, so a run that was stopped
and resumed sees the same samples and the same views as one that was not.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdpose_core.checkpoints import save_student, training_facts
from sdpose_core.data.batches import SampleStream, sample_weights
from sdpose_core.data.shards import CropSet
from sdpose_core.model import Student, StudentConfig
from sdpose_core.train.agreement import Agreement
from sdpose_core.train.beginning import first_student, served_config
from sdpose_core.train.clock import ComputeClock
from sdpose_core.train.config import StageConfig, TrainConfig
from sdpose_core.train.ema import WeightAverage
from sdpose_core.train.feed import StepInputs, render_inputs, step_inputs
from sdpose_core.train.hardware import choose_precision, device_kind, make_fabric
from sdpose_core.train.logs import RunLog
from sdpose_core.train.memory import keep_freed_memory
from sdpose_core.train.objective import Objective, total
from sdpose_core.train.optimiser import make_optimiser
from sdpose_core.train.schedule import learning_rate, stage_progress
from sdpose_core.train.scoring import DevelopmentSet, development_score
from sdpose_core.train.state import (
    Counters,
    read_state,
    remove_partials,
    write_config,
    write_state,
)


def _size_name(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


class Trainer:
    """One run in one folder; with ``resume`` it continues from the folder's ``state.pt``.

    The folder holds ``config.json``, ``log.csv``, ``tensorboard/``, ``state.pt``,
    ``last.safetensors`` and, once scored, ``best.safetensors`` (the best development score). The
    student serves at the size of the last stage: crops are averaged down to it.

    Raises:
        ValueError: the config does not fit this machine, its start, the folder's state or itself.
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
        self.crops = crops
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
            student, self.begun = Student(StudentConfig.from_dict(parts["student"])), ""
        else:
            student, self.begun = first_student(config)
        if resume:
            self.begun = f"goes on after step {self.counters.step}"
        student.config = served_config(student.config, config)
        self.objective = Objective(student.train(), config.loss)
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
        self._wish = False
        if resume:
            try:
                self._restore(parts)
            except (KeyError, RuntimeError) as error:
                raise ValueError(
                    f"{folder}: its state does not fit its config ({error})"
                ) from error

    def stop(self) -> None:
        """Ask the loop to end after the present step and to save its state; from any thread.

        ``stopping`` becomes true once all processes know.
        """
        self._wish = True

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
        # A process that was killed between the two files has a better student than it knows of.
        best = training_facts(self.folder / "best.safetensors").get("scores", {})
        name = _size_name(self.config.stages[-1].size)
        kept = float(best.get(f"dev/oks_{name}", -1.0))
        if kept > self.counters.best.get(name, -1.0):
            self.counters.best[name] = kept

    def run(self, *, stop_after_steps: int | None = None) -> None:
        """Train to the end of the last stage, or for ``stop_after_steps`` steps of this call.

        Raises:
            ValueError: the weights are not finite any more; the files are those of before.
        """
        with ExitStack() as stack:
            if self.fabric.is_global_zero:
                self.folder.mkdir(parents=True, exist_ok=True)
                remove_partials(self.folder)
                if not self.resumed:
                    write_config(self.folder, self.config)
                self.log = stack.enter_context(RunLog(self.folder))
                self.log.line(self.begun)
                self.log.line(
                    f"{len(self.crops)} crops, {self.stream.pass_length} a pass, {self.precision} "
                    f"on {self.fabric.device} x {self.fabric.world_size}"
                )
                if self.dev is None:
                    self.log.line("no development set: nothing is scored, the last student is kept")
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
        if self.counters.stage >= len(self.config.stages):
            self._score(self.config.stages[-1], finished=True)
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
            agreed.before_step(self._wish)
            if agreed.stopping:
                self.stopping = True
                break
            if self._score_due(agreed.seconds - counters.stage_scored):
                self._score(stage)
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
                self.stream.pass_length,
            )
            if progress >= 1:
                break
            start = time.perf_counter()
            rate = learning_rate(stage, counters.stage_step, progress)
            terms = self.step(next(inputs), stage, rate)
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
        inputs.close()  # type: ignore[attr-defined]
        ended = (limit is None or made < limit) and not self.stopping
        if ended and counters.stage + 1 < len(config.stages):
            self._score(stage)
        return made

    def inputs(self, stage: StageConfig) -> Iterator[StepInputs]:
        """What the coming steps of a stage need, from where the run stands."""
        return step_inputs(
            self.config,
            self.crops,
            self.stream,
            self.fabric.device,
            samples=self.counters.samples,
            step=self.counters.step,
            batch_size=stage.batch,
            rank=self.fabric.global_rank,
            world=self.fabric.world_size,
        )

    def _score_due(self, seconds: float) -> bool:
        """Whether to score, ``seconds`` after the last score."""
        epochs = self.config.evaluate_epochs
        if epochs is None:
            return seconds >= 60 * self.config.evaluate_minutes
        every = epochs * self.stream.pass_length
        return self.counters.samples // every > self.counters.scored_samples // every

    def step(self, inputs: StepInputs, stage: StageConfig, rate: float) -> dict[str, Tensor]:
        """One optimiser step on one batch; returns the loss terms."""
        config = self.config
        images, target, weights = self.render(inputs, stage)
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

    def render(self, inputs: StepInputs, stage: StageConfig) -> tuple[Tensor, Tensor, Tensor]:
        """Views, targets and weights of one batch, as ``render_inputs`` has them."""
        return render_inputs(inputs, stage.size, self.config.loss.heatmap)

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
        """Score the averaged student and keep the best; only the first process works.

        The state is to be saved right after, so that it knows of the student that was kept.
        """
        self._refuse_broken_weights()
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
                    name = _size_name(size)
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

    def _refuse_broken_weights(self) -> None:
        """Raise in every process before broken weights take the place of good ones."""
        tensors = [t for t in self.objective.state_dict().values() if t.is_floating_point()]
        broken = (~torch.stack([t.isfinite().all() for t in tensors])).any().float()
        if self.fabric.world_size > 1:
            heard = self.fabric.all_reduce(broken, reduce_op="sum")
            assert isinstance(heard, Tensor)
            broken = heard
        if broken > 0:
            raise ValueError(
                f"the weights are not finite any more after step {self.counters.step}; nothing of "
                f"them was saved. Begin again from {self.folder / 'best.safetensors'} or a start "
                "of yours with a lower rate, or with optimiser.clip"
            )

    def _save(self) -> None:
        self._refuse_broken_weights()
        if self.fabric.is_global_zero:
            parts: dict[str, Any] = {
                "student": self.student.config.to_dict(),
                "objective": self.objective.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "precision": self.fabric.strategy.precision.state_dict(),
            }
            if self.average is not None:
                parts["average"] = self.average.state_dict()
            write_state(self.folder, self.counters, parts)
        self.fabric.barrier()
