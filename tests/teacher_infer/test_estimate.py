"""What a job takes, before it is begun."""

from cluster.storage import output_directory, read_manifest
from data_prep.reading import read_rows
from data_prep.schema import SPLITS, sequence_files
from teacher_infer.config import LabelConfig
from teacher_infer.estimate import estimate
from teacher_infer.label import label
from teacher_infer.locate import locate_teacher
from tests.teacher_fixtures import ROWS


def histories(dataset):
    files = [file for split in SPLITS for file in sequence_files(dataset, split)]
    return [tuple(history) for file in files for history in read_rows(file)["history"].to_pylist()]


def test_rows_and_distinct_prompts_are_counted_and_nothing_is_written(tiny_dataset, tmp_path, capfd):
    output = tmp_path / "labels"
    label(LabelConfig(dataset=tiny_dataset, teacher="minilm", ranking="embed", top_k=5, output=output, dry_run=True))
    printed = capfd.readouterr().out
    distinct = len(set(histories(tiny_dataset)))
    assert f"{sum(ROWS.values())} rows, {distinct} distinct prompts" in printed
    assert "add --limit" in printed
    assert not output.exists()


def test_the_time_is_that_of_what_is_labelled(tiny_dataset, tmp_path):
    config = LabelConfig(dataset=tiny_dataset, teacher="minilm", top_k=5, output=tmp_path / "labels", ranking="embed")
    with output_directory(config.output, verb="label", config=config) as draft:
        draft.counts |= {"train": 10, "validation": 10, "test": 10, "prompts": 0}
        draft.metrics |= {f"{split}_seconds": 1200.0 for split in SPLITS}
    model = locate_teacher("minilm", "embed", tiny_dataset, read_manifest(tiny_dataset)).model
    # 3,600 seconds for 30 of 214 rows, by one CPU.
    assert "measured on 30 rows: about 7.13 CPU-hours, 7.13 h with 1 of" in estimate(config, model)
