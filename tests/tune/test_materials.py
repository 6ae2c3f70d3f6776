import torch

from student_train.config import TrainConfig
from student_train.train import load_materials
from tune.materials import _load, kind, shared_with


def test_what_is_shared_is_what_was_read(dataset, labels):
    config = TrainConfig(dataset=dataset, labels=labels)
    _, packed = _load(config)
    read = load_materials(config)
    assert torch.equal(torch.from_numpy(packed.train.teacher.items), read.train.teacher.items)
    assert torch.equal(torch.from_numpy(packed.teacher_embeddings), read.teacher_embeddings)
    assert (packed.total_rows, packed.teacher_ndcg) == (read.total_rows, read.teacher_ndcg)


def test_a_kind_that_is_not_shared_is_read(dataset, labels):
    config = TrainConfig(dataset=dataset, labels=labels)
    assert torch.equal(shared_with(config, {}).train.history, load_materials(config).train.history)


def test_only_what_decides_the_reading_makes_another_kind():
    base = TrainConfig()
    assert kind(base) == kind(base.model_copy(update={"learning_rate": 0.1, "student": "gru4rec"}))
    assert kind(base) != kind(base.model_copy(update={"shape": base.shape.model_copy(update={"history": 5})}))
