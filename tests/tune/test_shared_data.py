import pytest
import torch

from student_train.config import TrainConfig
from student_train.loop import build
from student_train.train import load_data
from tune.shared_data import _load, kind, share, shared_with


def test_what_is_shared_is_what_was_read(dataset, labels):
    config = TrainConfig(dataset=dataset, labels=labels)
    _, packed = _load(config)
    read = load_data(config)
    assert torch.equal(torch.from_numpy(packed.train.teacher.items), read.train.teacher.items)
    assert torch.equal(torch.from_numpy(packed.teacher_embeddings), read.teacher_embeddings)
    assert (packed.total_rows, packed.teacher_ndcg) == (read.total_rows, read.teacher_ndcg)


@pytest.mark.engine
def test_trials_of_one_process_have_the_same_tensors(ray_local, dataset, labels):
    config = TrainConfig(dataset=dataset, labels=labels)
    shared = share([config])
    learners = [build(one, shared_with(one, shared)) for one in (config, config.model_copy(update={"seed": 1}))]
    assert learners[0].projected.teacher_NE is learners[1].projected.teacher_NE


@pytest.mark.engine
def test_shorter_lists_are_cut_from_the_longest(ray_local, dataset, labels):
    configs = [TrainConfig(dataset=dataset, labels=labels, distillation={"top_k": top_k}) for top_k in (5, 20, 12)]
    shared = share(configs[:2])
    assert len(shared) == 1
    for config in configs:
        found, read = shared_with(config, shared), load_data(config)
        for cut, expected in zip(found.train.tensors(), read.train.tensors(), strict=True):
            assert torch.equal(cut, expected)
        assert torch.equal(found.teacher_embeddings, read.teacher_embeddings)


def test_a_kind_that_is_not_shared_is_read(dataset, labels):
    config = TrainConfig(dataset=dataset, labels=labels)
    assert torch.equal(shared_with(config, {}).train.history, load_data(config).train.history)


def test_only_what_decides_the_reading_makes_another_kind():
    base = TrainConfig()
    assert kind(base) == kind(base.model_copy(update={"learning_rate": 0.1, "student": "gru4rec"}))
    assert kind(base) != kind(base.model_copy(update={"shape": base.shape.model_copy(update={"history": 5})}))
