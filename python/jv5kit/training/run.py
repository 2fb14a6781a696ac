"""A run: its phases one after the other, each from where the last one left the student on disk.

Several processes go through it alike. What is written, the first one writes; what can fail in one of them alone is done
together, so that it fails in all.

::

    OUTPUT/run.toml             the settings, resolved
    OUTPUT/data.json            the sources: rows, fingerprint, licence
    OUTPUT/progress.json        the phases that are done
    OUTPUT/student/             the student after the last one that is, adapters/TASK beside its weights
    OUTPUT/projection.safetensors, rotation.safetensors    what stage 2 takes over from stage 1
    OUTPUT/checkpoints/PHASE/   of the phase that is not done
    OUTPUT/metrics.jsonl        a line for each step that is logged and for each evaluation
    OUTPUT/train.png            the same as curves
"""

from __future__ import annotations

import json
import shutil
import time
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from jv5kit.encoder import one_warning
from jv5kit.errors import InputError, Jv5kitError
from jv5kit.logs import logger
from jv5kit.progress import ProgressBar
from jv5kit.rotation import Rotation
from jv5kit.tasks import TASKS, Task
from jv5kit.training import lora
from jv5kit.training.batches import Batches
from jv5kit.training.checkpoints import read_checkpoint, write_checkpoint
from jv5kit.training.hardware import accelerator_of
from jv5kit.training.interrupts import Interrupted, interrupts
from jv5kit.training.journal import Journal
from jv5kit.training.judging import Judge
from jv5kit.training.loop import Coming, Loop, Targets
from jv5kit.training.objectives import (
    ClassificationObjective,
    ClusteringObjective,
    DistillObjective,
    RetrievalObjective,
    TextMatchingObjective,
)
from jv5kit.training.opening import fit_rotation, load_student, load_teacher, open_data, rotation_sample
from jv5kit.training.outputs import (
    check_folder,
    check_seen,
    done_phases,
    put_in_place,
    take_back,
    write_description,
    write_tensors,
    write_text,
)
from jv5kit.training.phases import STAGES, asks_teacher, kinds_of, nested_of, phases_of
from jv5kit.training.processes import launched, most, restarts, together
from jv5kit.training.projection import Distillation
from jv5kit.training.sharding import spread
from jv5kit.training.turning import turn_states

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from jv5kit.training.objectives import Objective
    from jv5kit.training.phases import Phase, Stage
    from jv5kit.training.rows import Source
    from jv5kit.training.sizes import RunSettings
    from jv5kit.training.teacher import Teacher


class Run:
    """A run of training.

    Args:
        settings: all of it.
        output: its folder; made if it is not there.
        stages: of ``distill``, ``long`` and ``adapt``, those to go through.
        tasks: of the last one, the adapters; None trains those that there is data for.
        resume: go on with what the folder holds. Where torchrun starts the same command again and again, one that
            is not there yet is begun, and what torchrun has started once more goes on without being told.
        show: whether to show progress; None shows it on a terminal.

    Raises:
        InputError: the folder holds another run, data cannot be read or are not what a phase takes, a model cannot be
            loaded.
    """

    def __init__(
        self,
        settings: RunSettings,
        output: Path,
        *,
        stages: Sequence[Stage] = STAGES,
        tasks: Sequence[Task] | None = None,
        resume: bool = False,
        show: bool | None = None,
    ) -> None:
        self.settings = settings
        self.output = output
        self._show = show
        self._accelerator = accelerator_of(bfloat16=settings.optimizer.bfloat16)
        self._first = self._accelerator.is_main_process
        again = resume or most(restarts()) > 0
        with together():
            check_folder(settings, output, resume=again, begin=launched())
        # No process has written to it before each has looked.
        with together():
            if self._first:
                take_back(output, "student")
        if self._accelerator.num_processes > 1:
            # One writes the rows to their store, and all read them.
            with together():
                for given in settings.data if self._first else ():
                    open_data(given)
        with together():
            self._open(stages, tasks)

    def _open(self, stages: Sequence[Stage], tasks: Sequence[Task] | None) -> None:
        settings = self.settings
        self._sources = [(given, open_data(given)) for given in settings.data]
        self.phases = phases_of(settings, stages, TASKS if tasks is None else tasks)
        if tasks is None:
            left_out = [phase for phase in self.phases if phase.task and not self._can_run(phase)]
            for phase in left_out:
                logger.info("%s is left out: it has no rows, or no teacher", phase.name)
            self.phases = [phase for phase in self.phases if phase not in left_out]
        if not self.phases:
            raise InputError("there is nothing to train: no phase has steps, and data that it takes")
        for phase in self.phases:
            self._check_phase(phase)
        self._journal = Journal(self.output, active=self._first)
        self._teacher: Teacher | None = None
        self._judge = Judge(settings.evaluation.data)
        self._student = load_student(settings, self.output)
        self._nested = nested_of(settings, self._student.dim)

    def train(self) -> None:
        """Go through the phases that are not done.

        Raises:
            Jv5kitError: a loss or a gradient is no number; a checkpoint cannot be written.
            Interrupted: after Ctrl-C; what was done is in a checkpoint.
        """
        with together():
            if self._first:
                write_description(self.settings, self._sources, self.output)
        with together():
            check_seen(self.output)
        done = done_phases(self.output)
        # The teacher's texts that are longer than its context.
        with one_warning():
            for phase in self.phases:
                if phase.name not in done:
                    self._run(phase)
                    # As a run that goes on has it: weights that were spread stay so.
                    self._student = load_student(self.settings, self.output)

    def _run(self, phase: Phase) -> None:
        folder = self.output / "checkpoints" / phase.name
        torch.manual_seed(self.settings.seed * 1000 + phase.number)
        self._prepare_student(phase)
        objective, targets = self._objective(phase)
        if self.settings.student.turn and not (self.output / "student").exists():
            self._turn(targets)
        if self.settings.optimizer.shard and self._accelerator.num_processes > 1:
            spread(self._student.backbone)
        sources = self._sources_of(phase)
        batches = Batches(
            sources,
            phase.settings.batch,
            seed=self.settings.seed * 1000 + phase.number,
            negatives=self.settings.classification.negatives,
        )
        loop = Loop(
            self._accelerator,
            self._student,
            objective,
            Coming(batches, objective, targets),
            phase.settings,
            self.settings.optimizer,
            targets,
        )
        checkpoint = read_checkpoint(folder)
        step = 0 if checkpoint is None else checkpoint.step
        if most(step) != -most(-step):
            raise Jv5kitError(f"the processes read other checkpoints in {folder}: put it on a disk that all see")
        if checkpoint is not None:
            loop.go_on(checkpoint)
            logger.info("%s goes on after step %d", phase.name, checkpoint.step)
        # Before the first step nothing is kept, not even what the student was before it.
        self._journal.cut(phase.name, loop.step_number or -1)
        self._steps(phase, loop, folder)
        self._average(phase, loop, folder)
        self._finish(phase, objective, folder)

    def _steps(self, phase: Phase, loop: Loop, folder: Path) -> None:
        optimizer, steps = self.settings.optimizer, phase.settings.steps
        if loop.step_number == 0:
            self._evaluate(phase, 0)
        began, tokens = time.perf_counter(), 0
        show = self._show if self._first else False
        with ProgressBar(phase.name, lambda: steps, "steps", show=show) as progress, interrupts() as interrupted:
            progress(loop.step_number)
            while loop.step_number < steps:
                record = loop.step()
                tokens += record["tokens"]
                speed = tokens * self._accelerator.num_processes / (time.perf_counter() - began)
                if loop.step_number % optimizer.log_steps == 0 or loop.step_number in (1, steps):
                    self._journal.write({"phase": phase.name, **record, "tokens_per_second": round(speed, 1)})
                progress.describe(f"{phase.name}  loss {record['loss']:.4f}  {speed:,.0f} tokens/s")
                progress(1)
                if loop.step_number in phase.settings.kept:
                    self._keep(loop, _kept(folder, loop.step_number))
                if loop.step_number % optimizer.evaluate_steps == 0 and loop.step_number < steps:
                    self._evaluate(phase, loop.step_number)
                # One may have seen it before its step, and another after it.
                stop = most(int(interrupted())) > 0
                if stop or loop.step_number % optimizer.checkpoint_steps == 0 or loop.step_number == steps:
                    checkpoint = loop.checkpoint()
                    with together():
                        if self._first:
                            write_checkpoint(folder, checkpoint)
                if stop:
                    logger.warning("interrupted after step %d of %s", loop.step_number, phase.name)
                    raise Interrupted

    def _keep(self, loop: Loop, path: Path) -> None:
        trained = loop.trained()
        with together():
            if self._first:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_tensors(path, trained)

    def _average(self, phase: Phase, loop: Loop, folder: Path) -> None:
        """Take the mean of the last weights and those that were kept."""
        steps = phase.settings.kept
        if not steps:
            return
        share = 1 / (len(steps) + 1)
        averaged = {name: last * share for name, last in loop.trained().items()}
        # The first process removes them in the end, when all have read them.
        with together():
            for step in steps:
                for name, kept in load_file(_kept(folder, step)).items():
                    averaged[name] += kept * share
        loop.load(averaged)

    def _finish(self, phase: Phase, objective: Objective, folder: Path) -> None:
        """Leave the student for what comes next, and say that the phase is done."""
        self._evaluate(phase, phase.settings.steps)
        weights = None
        if phase.task is None or not (self.output / "student").exists():
            weights = self._student.weights(here=self._first)
        with together():
            if self._first:
                self._put(phase, objective, weights)
                shutil.rmtree(folder, ignore_errors=True)

    def _put(self, phase: Phase, objective: Objective, weights: dict[str, Tensor] | None) -> None:
        self._journal.draw()
        if weights is not None:
            put_in_place(self.output, "student", lambda place: self._student.save(place, weights))
        if phase.task is not None:
            adapter = f"student/adapters/{phase.task}"
            put_in_place(self.output, adapter, lambda place: lora.save_adapter(self._student, place))
        elif isinstance(objective.module, Distillation):
            write_tensors(self.output / "projection.safetensors", objective.module.state_dict())
        done = [*done_phases(self.output), phase.name]
        write_text(self.output / "progress.json", json.dumps({"done": done}))

    def _prepare_student(self, phase: Phase) -> None:
        """What of the student is learned, and at which RoPE base."""
        theta = phase.settings.rope_theta or self._student.inference_theta
        if theta:
            self._student.set_rope_theta(theta)
        self._student.requires_grad_(phase.task is None)
        if phase.task is not None:
            settings: Any = phase.settings
            seed = self.settings.seed * 1000 + phase.number
            lora.add_adapter(self._student, settings.rank, settings.alpha, settings.dropout, seed)
        self._student.to(self._accelerator.device)

    def _turn(self, targets: Targets | None) -> None:
        """Let the student begin where the rotated targets are; weights of a checkpoint come in the place of its own."""
        if targets is None or targets.turn is None:
            raise InputError("student.turn is set, and no targets are rotated: set teacher.rotate too, or leave it out")
        turn_states(self._student, torch.from_numpy(targets.turn.matrix))

    def _objective(self, phase: Phase) -> tuple[Objective, Targets | None]:
        """What a phase minimizes, and the teacher's side of it."""
        own: Any = phase.settings
        nested = self._nested
        targets = self._targets(phase) if asks_teacher(phase) else None
        objective: Objective
        match phase.name:
            case "retrieval":
                objective = RetrievalObjective(own, self._projection(targets), nested)
            case "text-matching":
                objective = TextMatchingObjective(own, self._projection(targets), nested)
            case "classification":
                objective = ClassificationObjective(own, nested)
            case "clustering":
                assert targets is not None
                objective = ClusteringObjective(own, self._distillation(targets))
            case _:
                objective = DistillObjective(own, self._projection(targets), nested)
        return objective, targets

    def _projection(self, targets: Targets | None) -> Distillation | None:
        return None if targets is None else self._distillation(targets)

    def _distillation(self, targets: Targets) -> Distillation:
        """The projection that an earlier phase left, else one that begins."""
        stage1 = self.settings.distill
        made = Distillation(
            self._student.dim,
            targets.teacher.dim,
            stage1.projection,
            stage1.projection_start,
            dims=[dim for dim, _ in self._nested],
            weights=[weight for _, weight in self._nested],
            rotated=targets.turn is not None,
            seed=self.settings.seed,
        )
        kept = self.output / "projection.safetensors"
        if kept.exists():
            tensors = load_file(kept)
            if tensors["weight"].shape != made.weight.shape:
                raise InputError(
                    f"{kept} maps to {len(tensors['weight'])} dimensions, the teacher has {targets.teacher.dim}: it is "
                    "that of another teacher; begin with stage 1 again"
                )
            made.load_state_dict(tensors)
        return made

    def _targets(self, phase: Phase) -> Targets:
        settings = self.settings.teacher
        if self._teacher is None:
            self._teacher = load_teacher(settings, self._accelerator)
        teacher = self._teacher
        prompts = {"query": settings.query_prompt, "document": settings.document_prompt}
        topic = getattr(phase.settings, "teacher_prompt", "")
        if topic:
            prompts = dict.fromkeys(prompts, topic)
        targets = Targets(teacher, {"query": prompts["query"], "document": prompts["document"]})
        if settings.rotate:
            path = self.output / "rotation.safetensors"
            if not path.exists():
                sample = rotation_sample(self._sources_of(phase))
                targets.prepare([sample])
                with together():
                    if self._first:
                        write_tensors(path, fit_rotation(targets, sample, [dim for dim, _ in self._nested]))
            targets.turn = Rotation(load_file(path)["rotation"].numpy())
        return targets

    def _evaluate(self, phase: Phase, step: int) -> None:
        if self._judge.sets:
            # By every process: what is spread takes all of them, and they could only wait.
            scores = self._judge(self._student)
            self._journal.write({"phase": phase.name, "step": step, "scores": scores})
            self._journal.draw()

    def _sources_of(self, phase: Phase) -> list[Source]:
        return [
            source
            for given, source in self._sources
            if source.kind in kinds_of(phase) and (not given.phases or phase.name in given.phases)
        ]

    def _can_run(self, phase: Phase) -> bool:
        return bool(self._sources_of(phase)) and (bool(self.settings.teacher.model) or not asks_teacher(phase))

    def _check_phase(self, phase: Phase) -> None:
        if asks_teacher(phase) and not self.settings.teacher.model:
            raise InputError(
                f"{phase.name} distils, and there is no teacher: name one with --teacher, or set its weight to 0"
            )
        if not self._sources_of(phase):
            have = ", ".join(f"{source.name} ({source.kind})" for _, source in self._sources) or "none is given"
            raise InputError(
                f"{phase.name} has no data: it takes rows that are {' or '.join(kinds_of(phase))}, and of the "
                f"sources there is none ({have}); add some with --data, or leave it out with --task or --stage"
            )


def _kept(folder: Path, step: int) -> Path:
    """Where the weights of a step are that the phase's mean is taken of."""
    return folder / f"kept-{step}.safetensors"
