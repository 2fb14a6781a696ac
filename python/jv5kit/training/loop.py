"""The training loop: a phase, step by step."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from jv5kit.errors import InputError, Jv5kitError
from jv5kit.tasks import document_prompt, query_prompt
from jv5kit.training import lora
from jv5kit.training.checkpoints import Checkpoint, flattened, restore
from jv5kit.training.encoded import Encoded
from jv5kit.training.gathering import average_gradients, gather, share
from jv5kit.training.passes import Passes
from jv5kit.training.permutation import seed_of
from jv5kit.training.processes import most
from jv5kit.training.sharding import clip_gradients, is_spread, like, of_each_kind, whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from accelerate import Accelerator

    from jv5kit.rotation import Rotation
    from jv5kit.training.batches import Batch, Batches
    from jv5kit.training.encoded import Column, Role
    from jv5kit.training.objectives import Objective
    from jv5kit.training.sizes import OptimizerSettings, PhaseSettings
    from jv5kit.training.student import Student
    from jv5kit.training.teacher import Teacher

AHEAD_TEXTS = 2048
"""Texts of coming batches whose teacher embeddings are made together."""


@dataclass(slots=True)
class Targets:
    """A teacher's embeddings as a phase sees them: with its prompts, rotated if a run's are.

    Attributes:
        teacher: the model and its cache.
        prompts: what it puts before queries and before documents.
        turn: what is done to its embeddings.
    """

    teacher: Teacher
    prompts: dict[Role, str]
    turn: Rotation | None = None

    def rows(self, column: Column) -> Tensor:
        """The targets of a column's texts: ``(n, dim)``."""
        rows = self.teacher.rows(column.texts, self.prompts[column.role])
        return torch.from_numpy(rows if self.turn is None else self.turn(rows))

    def prepare(self, columns: Sequence[Column]) -> int:
        """Encode what the cache has not."""
        texts = ((self.prompts[column.role], text) for column in columns if column.taught for text in column.texts)
        return self.teacher.prepare(texts)


@dataclass(slots=True)
class Coming:
    """The batches of a phase, drawn some ahead of their use, so that a teacher sees many texts at a time."""

    batches: Batches
    objective: Objective
    targets: Targets | None
    _drawn: deque[Batch] = field(default_factory=deque)
    _state: dict[str, Any] = field(default_factory=dict)
    _taken: int = 0

    def next(self, left: int) -> Batch:
        """The next batch; ``left`` are still to come, this one among them."""
        if not self._drawn:
            self._state, self._taken = self.batches.state(), 0
            columns, texts = [], 0
            while len(self._drawn) < left and (not self._drawn or texts < AHEAD_TEXTS):
                batch = next(self.batches)
                self._drawn.append(batch)
                if self.targets is None:
                    break
                own = self.objective.columns(batch.rows)
                columns += own
                texts += sum(len(column.texts) for column in own)
            if self.targets is not None:
                self.targets.prepare(columns)
        self._taken += 1
        return self._drawn.popleft()

    def position(self) -> dict[str, Any]:
        """Where the next batch is, as :meth:`go_to` takes it."""
        return {"state": self._state or self.batches.state(), "taken": self._taken}

    def go_to(self, position: dict[str, Any]) -> None:
        """Go on where a run was."""
        self.batches.restore(position["state"])
        for _ in range(position["taken"]):
            next(self.batches)


class Loop:
    """A phase of training.

    Attributes:
        step_number: steps that are done.
        student: as it is now.
        objective: what is minimized.
        settings: of the phase.
        trained_parameters: what is learned, by name.

    Args:
        accelerator: device, type and processes.
        student: is changed in place; what of it needs a gradient is learned.
        objective: what is minimized.
        coming: the batches.
        settings: of the phase.
        optimizer: settings of AdamW and of its schedule.
        targets: the teacher's embeddings, if the objective asks for them.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        student: Student,
        objective: Objective,
        coming: Coming,
        settings: PhaseSettings,
        optimizer: OptimizerSettings,
        targets: Targets | None,
    ) -> None:
        self.step_number = 0
        self.student = student
        self.objective = objective
        self.settings = settings
        self._accelerator = accelerator
        self._coming = coming
        self._prompts: dict[Role, str] = {
            "query": query_prompt(student.prompts, "retrieval"),
            "document": document_prompt(student.prompts),
        }
        self._optimizer_settings = optimizer
        self._targets = targets
        objective.module.to(accelerator.device)
        named = [*student.named_parameters(), *objective.module.named_parameters(prefix="objective")]
        self.trained_parameters = {name: parameter for name, parameter in named if parameter.requires_grad}
        self._is_spread = any(is_spread(parameter) for parameter in student.parameters())
        matrices = [parameter for parameter in self.trained_parameters.values() if parameter.ndim >= 2]
        others = [parameter for parameter in self.trained_parameters.values() if parameter.ndim < 2]
        self._optimizer = torch.optim.AdamW(
            [
                {"params": kind, "weight_decay": decay}
                for parameters, decay in ((matrices, optimizer.weight_decay), (others, 0.0))
                # Numbered as they are where none is spread, for the backbone's come first.
                for kind in of_each_kind(parameters)
            ],
            lr=settings.learning_rate,
            betas=(optimizer.betas[0], optimizer.betas[1]),
            # One pass over the weights instead of seven: on a CPU, a tenth of a step.
            fused=True,
        )
        if accelerator.process_index:
            self._draw_apart()

    def step(self) -> dict[str, Any]:
        """Take one step, and say what it was: the loss, its terms, the rate, the texts' tokens, and seconds.

        Raises:
            Jv5kitError: the loss or the gradient is no number; nothing was changed.
            InputError: of the loss of such rows no term has a weight.
        """
        start = time.perf_counter()
        batch = self._coming.next(self.settings.steps - self.step_number)
        record = self.backward(batch)
        norm = self._clip(batch)
        rate = self.settings.learning_rate * self._schedule()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step_number += 1
        seconds = time.perf_counter() - start
        return {
            "step": self.step_number,
            **record,
            "gradient_norm": norm,
            "learning_rate": rate,
            "seconds": round(seconds, 4),
        }

    def backward(self, batch: Batch) -> dict[str, Any]:
        """Leave the gradient of a batch at what is learned, and say what the loss was of."""
        columns = self.objective.columns(batch.rows)
        passes, own, counts = self._encode(columns, batch.source.length or self.settings.length)
        encoded = self._gathered(columns, own, counts)
        terms = self.objective.terms(batch.rows, encoded)
        if not terms:
            raise InputError(f"no term of the loss that rows as those of {batch.source.name} have has a weight above 0")
        loss = torch.stack([self.objective.weights[name] * term for name, term in terms.items()]).sum()
        values = {name: float(term.detach()) for name, term in terms.items()}
        self._check(loss.detach(), values, batch)
        loss.backward()
        passes.backward()
        average_gradients(self.trained_parameters.values())
        return {"source": batch.source.name, "loss": float(loss.detach()), **values, "tokens": self._tokens}

    def checkpoint(self) -> Checkpoint:
        """All that the next step depends on; every process takes part, and the first one is given the tensors."""
        state = self._random_state()
        states = [state]
        if self._accelerator.num_processes > 1:
            states = [torch.empty_like(state) for _ in range(self._accelerator.num_processes)]
            torch.distributed.all_gather_object(states, state)
        random = {str(process): state for process, state in enumerate(states)}
        here = self._accelerator.is_main_process
        trained = whole(self.trained_parameters, here=here)
        optimizer = whole(flattened(self._optimizer), here=here)
        return Checkpoint(self.step_number, trained, optimizer, random, self._coming.position())

    def go_on(self, checkpoint: Checkpoint) -> None:
        """Take up a phase after the last step of a checkpoint, whatever number of processes has written it.

        A process that was there draws on as it would have, another one, or one on another device, anew.
        """
        self.load(checkpoint.trained)
        restore(self._optimizer, checkpoint.optimizer)
        self._coming.go_to(checkpoint.data)
        self.step_number = checkpoint.step
        state = checkpoint.random.get(str(self._accelerator.process_index))
        # A GPU's generator has another state than a CPU's.
        if state is None or len(state) != len(self._random_state()):
            self._draw_apart()
        elif self._accelerator.device.type == "cuda":
            torch.cuda.set_rng_state(state)
        else:
            torch.set_rng_state(state)

    def _random_state(self) -> Tensor:
        """That of the generator that this process draws by."""
        return torch.cuda.get_rng_state() if self._accelerator.device.type == "cuda" else torch.get_rng_state()

    def trained(self) -> dict[str, Tensor]:
        """What is learned, by name, on the CPU; every process takes part."""
        return whole(self.trained_parameters)

    def load(self, trained: dict[str, Tensor]) -> None:
        """Put other values in the place of what is learned."""
        with torch.no_grad():
            for name, parameter in self.trained_parameters.items():
                parameter.copy_(like(parameter, trained[name]))

    def _draw_apart(self) -> None:
        """Draw what no other process draws, nor this one at another step."""
        torch.manual_seed(seed_of(torch.initial_seed(), self._accelerator.process_index, self.step_number))

    def _encode(self, columns: Sequence[Column], length: int) -> tuple[Passes, list[Tensor], list[list[int]]]:
        """This process's share of each column through the student, and how many texts of it each process has."""
        processes, process = self._accelerator.num_processes, self._accelerator.process_index
        length = min(length, self.student.max_tokens)
        texts: list[list[int]] = []
        sizes, counts = [], []
        for column in columns:
            ends = [sum(column.counts[: share(len(column.counts), p, processes).stop]) for p in range(processes)]
            starts = [0, *ends[:-1]]
            own = column.texts[starts[process] : ends[process]]
            texts += self.student.tokenize(own, self._prompts[column.role], length)
            sizes.append(len(own))
            counts.append([end - start for start, end in zip(starts, ends, strict=True)])
        self._tokens = sum(map(len, texts))
        passes = self._passes(texts)
        self.student.train()
        embeddings = passes.forward()
        parts = list(embeddings.split(sizes))
        if self.objective.asks_base:
            parts += list(self._base(texts).split(sizes))
        return passes, parts, counts

    def _base(self, texts: list[list[int]]) -> Tensor:
        """The embeddings of the student without its adapter."""
        with torch.no_grad(), lora.disabled(self.student):
            return self._passes(texts).forward().detach()

    def _passes(self, texts: list[list[int]]) -> Passes:
        return Passes(
            self.student.embed,
            texts,
            self._optimizer_settings.pass_tokens,
            autocast=self._accelerator.autocast,
            # To bring weights together takes every process.
            agree=most if self._is_spread else None,
        )

    def _gathered(self, columns: Sequence[Column], own: list[Tensor], counts: list[list[int]]) -> list[Encoded]:
        """The columns of the whole batch."""
        count = len(columns)
        bases: list[Tensor | None] = [None] * count
        if len(own) > count:
            bases = [gather(rows, counts[i]) for i, rows in enumerate(own[count:])]
        encoded = []
        for i, column in enumerate(columns):
            teacher = None
            if self._targets is not None and column.taught:
                teacher = self._targets.rows(column).to(self._accelerator.device)
            encoded.append(Encoded(column, gather(own[i], counts[i]), teacher, bases[i]))
        return encoded

    def _check(self, loss: Tensor, terms: dict[str, float], batch: Batch) -> None:
        if torch.isfinite(loss):
            return
        values = ", ".join(f"{name} {term:.4g}" for name, term in terms.items())
        first = batch.source.origin(batch.positions[0])
        raise Jv5kitError(
            f"the loss is {float(loss)} at step {self.step_number + 1} ({values}), in a batch of {len(batch.rows)} "
            f"rows that begins with {first}; the last checkpoint is as it was"
        )

    def _clip(self, batch: Batch) -> float:
        """Clip the gradient, and say how large it was."""
        limit = self._optimizer_settings.clip or math.inf
        norm = clip_gradients(self.trained_parameters.values(), limit)
        if not math.isfinite(norm):
            first = batch.source.origin(batch.positions[0])
            raise Jv5kitError(
                f"the gradient is {norm} at step {self.step_number + 1}, in a batch of {len(batch.rows)} rows that "
                f"begins with {first}; the last checkpoint is as it was"
            )
        return norm

    def _schedule(self) -> float:
        """Share of the learning rate: rises linearly, then falls as a cosine does; once, or from end to end."""
        done = self.step_number + 1
        start, end = next(cycle for cycle in pairwise((0, *self.settings.ends)) if done <= cycle[1])
        steps, done = end - start, done - start
        warmup = math.ceil(steps * self._optimizer_settings.warmup)
        if done <= warmup:
            return done / warmup
        final = self._optimizer_settings.final
        cosine = (1 + math.cos(math.pi * (done - warmup) / max(1, steps - warmup))) / 2
        # The last step would have a rate of 0, and change nothing.
        return final + (1 - final) * max(cosine, 1 / (4 * steps))
