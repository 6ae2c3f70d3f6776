import pytest
import torch

from student_train.config import TrainConfig
from student_train.loop import build
from student_train.worker import load_data
from tune.shared_data import share, shared_with

pytestmark = pytest.mark.engine


def test_trials_of_one_process_have_the_same_tensors(ray_local, dataset, labels):
    config = TrainConfig(dataset=dataset, labels=labels)
    shared = share([config])
    models = [build(one, shared_with(one, shared)) for one in (config, config.model_copy(update={"seed": 1}))]
    assert models[0].projected.teacher_NE is models[1].projected.teacher_NE


def test_shorter_lists_and_histories_are_cut_from_the_longest(ray_local, dataset, labels):
    configs = [
        TrainConfig(dataset=dataset, labels=labels, distillation={"top_k": top_k}, model={"max_length": length})
        for top_k, length in ((5, 4), (20, 3), (12, 6))
    ]
    shared = share(configs)
    for config in configs:
        found, read = shared_with(config, shared), load_data(config)
        for name in ("history", "target", "row_id"):
            assert torch.equal(getattr(found.train, name), getattr(read.train, name))
            assert torch.equal(getattr(found.validation, name), getattr(read.validation, name))
        for name, values in vars(read.train.teacher).items():
            assert torch.equal(getattr(found.train.teacher, name), values)
        assert torch.equal(found.teacher_embeddings, read.teacher_embeddings)
        assert (found.total_rows, found.teacher_ndcg) == (read.total_rows, read.teacher_ndcg)
