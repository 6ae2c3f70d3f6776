"""Work of the pool: what the teacher answers to the rows of a shard, before any of them is ranked."""

import time

import pyarrow as pa

from data_prep.reading import read_titles
from teacher_infer.attempts import attempt
from teacher_infer.engine import Generated
from teacher_infer.job import Engines, Job
from teacher_infer.labeller import Done, as_rows, untitled
from teacher_infer.rankers.base import Rows
from teacher_infer.stats import Stats
from teacher_infer.store import ANSWERS, Shard

REMEMBERED = 1_000_000

Prompt = tuple[str, ...]


class Answers:
    """Generates an answer to every history; prompts that read alike are answered once."""

    def __init__(self, job: Job, engines: Engines) -> None:
        self._job, self._engines = job, engines
        self._titles = read_titles(job.config.dataset)
        self._answers: dict[Prompt, Generated] = {}

    def do(self, shard: Shard) -> Done:
        """Answer what a shard lacks."""
        store = self._job.store
        table, before = store.unlabelled(self._job.config.dataset, shard), store.answers(shard)
        answered = set()
        if before is not None:
            answered = set(before.filter(before["error"].is_null())["row_id"].to_pylist())
        rows = as_rows(table)
        rows = rows.take([at for at, row_id in enumerate(rows.row_id) if row_id not in answered])
        errors = untitled(rows, self._titles)
        rows = rows.take([at for at, row_id in enumerate(rows.row_id) if row_id not in errors])
        parts, failed = attempt(rows, self._ask, self._engines)
        errors |= failed
        stats = Stats.total(stats for _, (_, stats) in parts)
        texts = [
            (i, one.text, one.dropped, None)
            for part, (found, _) in parts
            for i, one in zip(part.row_id, found, strict=True)
        ]
        lines = [*texts, *((row_id, None, 0, error) for row_id, error in errors.items())]
        table = pa.Table.from_pylist([dict(zip(ANSWERS.names, line, strict=True)) for line in lines], schema=ANSWERS)
        store.commit_answers(shard, table, stats)
        return Done(stats.model_copy(update={"rows": len(texts), "failed": len(errors)}), errors)

    def _ask(self, rows: Rows) -> tuple[list[Generated], Stats]:
        """Greedy answers do not depend on when they are asked for, so those given before are used again."""
        config = self._job.config
        prompts = [tuple(self._titles[item] for item in history) for history in rows.history]
        if len(self._answers) > REMEMBERED:
            self._answers.clear()
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._answers]
        engine, started = self._engines("generate"), time.perf_counter()
        generated = engine.generate(new, config.max_new_tokens, config.beams or 1) if new else []
        self._answers |= dict(zip(new, generated, strict=True))
        stats = Stats(
            prompts=len(new),
            prompt_tokens=sum(answer.prompt_tokens for answer in generated),
            cached_tokens=sum(answer.cached_tokens for answer in generated),
            new_tokens=sum(answer.new_tokens for answer in generated),
            seconds=time.perf_counter() - started,
        )
        return [self._answers[prompt] for prompt in prompts], stats
