"""Whether a teacher spread over processes answers as it does in one.

Run: ``python -m benchmarks.spread [--quick] [--dataset DIR] [--teacher DIR] [--tensor 2] [--pipeline 2] [--gpu]``.
Without arguments as ``benchmarks.beam``. An engine of one process and one of ``tensor × pipeline`` processes answer the
same prompts, one after the other; the model needs a layer for every stage of the pipeline.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import ray

from benchmarks.materials import made, parse_teacher, teacher_parser, title_rows
from benchmarks.options import report
from cluster.config import ClusterConfig
from cluster.ray_session import ray_session
from teacher_infer.config import VllmConfig

NEW_TOKENS = 32


def main() -> None:
    """Ask both engines and print what they share."""
    options = teacher_parser(__doc__)
    options.add_argument("--rows", type=int, default=24, help="Rows that both engines answer.")
    options.add_argument("--tensor", type=int, default=2, help="Processes that share each layer.")
    options.add_argument("--pipeline", type=int, default=1, help="Stages that the layers are divided into.")
    asked = parse_teacher(options, rows=4)
    one, processes = VllmConfig(), asked.tensor * asked.pipeline
    spread = one.model_copy(
        update={"tensor_parallel_size": asked.tensor, "pipeline_parallel_size": asked.pipeline},
    )
    with tempfile.TemporaryDirectory() as folder:
        dataset, teacher = made(asked, Path(folder))
        rows = title_rows(dataset, "test")
        histories, targets = rows.histories[: asked.rows], rows.targets[: asked.rows]
        with ray_session(ClusterConfig()):
            texts, logprobs = _answers(teacher, one, int(asked.gpu), histories, targets)
            spread_texts, spread_logprobs = _answers(teacher, spread, asked.gpu * processes, histories, targets)
    same = np.mean([text == other for text, other in zip(texts, spread_texts, strict=True)])
    report(
        {
            "spread_processes": processes,
            "spread_same_texts": float(same),
            "spread_largest_logprob_difference": float(np.abs(logprobs - spread_logprobs).max()),
        }
    )


def _answers(
    teacher: Path, config: VllmConfig, gpus: int, histories: list[tuple[str, ...]], targets: list[str]
) -> tuple[Any, Any]:
    """Generated texts, and the log-probability of every token of the true titles."""

    @ray.remote(num_cpus=1, num_gpus=gpus, max_calls=1)
    def answers() -> tuple[list[str], np.ndarray]:
        from teacher_infer.engine import VllmEngine

        engine = VllmEngine(teacher.absolute(), "generate", config, gpus > 0)
        texts = [answer.text for answer in engine.generate(histories, NEW_TOKENS)]
        paths = engine.title_tokens(targets)
        prompts = engine.prompts(histories, max(map(len, paths)) + 1)
        logprobs = engine.path_logprobs([prompt.tokens for prompt in prompts], paths)
        engine.close()
        return texts, np.concatenate([path.values for path in logprobs])

    return ray.get(answers.remote())


if __name__ == "__main__":
    main()
