import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cluster.errors import OutputError, StaleInputError
from cluster.files import write_text
from cluster.storage import (
    MANIFEST_FILE,
    UNFINISHED_FILE,
    Unfinished,
    check_made_from,
    fingerprint,
    output_directory,
    read_manifest,
)
from model_registry.config import PromoteConfig

CONFIG = PromoteConfig()


def write(path: Path, text: str = "one", verb: str = "prepare", overwrite: bool = False, **inputs: str) -> None:
    with output_directory(path, verb=verb, config=CONFIG, inputs=inputs, overwrite=overwrite) as draft:
        (draft.path / "part.txt").write_text(text)
        draft.counts["rows"] = 3
        draft.metrics["loss"] = 0.5


def test_manifest_says_what_made_the_directory(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "out", dataset="f1")
    manifest = read_manifest(tmp_path / "deep" / "out", "prepare")
    assert manifest.counts == {"rows": 3}
    assert manifest.metrics == {"loss": 0.5}
    assert manifest.inputs == {"dataset": "f1"}
    assert manifest.config == CONFIG.model_dump(mode="json")
    assert manifest.fingerprint == fingerprint(tmp_path / "deep" / "out")
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]


def test_who_reads_the_manifest_reads_the_tensors(tmp_path: Path) -> None:
    with output_directory(tmp_path / "out", verb="prepare", config=CONFIG) as draft:
        save_file({"one": torch.zeros(1)}, draft.path / "one.safetensors")
    modes = {file.name: file.stat().st_mode for file in (tmp_path / "out").iterdir()}
    assert modes["one.safetensors"] == modes[MANIFEST_FILE]


def test_nobody_takes_a_directory_in_the_making_for_complete(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    with output_directory(tmp_path / "out", verb="prepare", config=CONFIG, overwrite=True) as draft:
        assert [p.name for p in draft.path.iterdir()] == [UNFINISHED_FILE]
        (draft.path / "part.txt").write_text("new")
        with pytest.raises(StaleInputError, match="holds no finished output"):
            read_manifest(tmp_path / "out", "prepare")
    assert read_manifest(tmp_path / "out", "prepare").files == ["part.txt"]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_failure_midway_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), output_directory(tmp_path / "out", verb="prepare", config=CONFIG) as draft:
        (draft.path / "deep").mkdir()
        (draft.path / "deep" / "part.txt").write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


def killed(path: Path, *files: str) -> None:
    """A run of ``prepare`` that ends by itself in the middle, as by ``kill -9``."""
    program = (
        "import os, pathlib\n"
        "from cluster.config import Config\n"
        "from cluster.storage import output_directory\n"
        f"path = pathlib.Path({str(path)!r})\n"
        "with output_directory(path, verb='prepare', config=Config(), overwrite=True) as draft:\n"
        f"    for name in {files!r}:\n"
        "        (draft.path / name).write_text('half')\n"
        "    os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 9


def test_the_same_verb_begins_again_where_it_was_killed(tmp_path: Path) -> None:
    killed(tmp_path / "out", "part.txt", "rest.txt")
    with pytest.raises(StaleInputError, match="holds no finished output"):
        read_manifest(tmp_path / "out", "prepare")
    with pytest.raises(OutputError, match="holds the unfinished output of `dllm2rec prepare`"):
        write(tmp_path / "out", verb="label")
    killed(tmp_path / "out", "other.txt")
    write(tmp_path / "out", "new")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [MANIFEST_FILE, "part.txt"]


def test_overwrite_removes_only_what_the_verb_made(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    killed(tmp_path / "out", "part.txt", "rest.txt")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        UNFINISHED_FILE,
        "notes.txt",
        "part.txt",
        "rest.txt",
    ]
    write(tmp_path / "out", "new", overwrite=True)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [MANIFEST_FILE, "notes.txt", "part.txt"]
    assert (tmp_path / "out" / "part.txt").read_text() == "new"
    write(tmp_path / "alone", "new")
    assert read_manifest(tmp_path / "out").fingerprint == read_manifest(tmp_path / "alone").fingerprint


def test_a_directory_that_another_process_writes_is_refused(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys\n"
        "from cluster.config import Config\n"
        "from cluster.storage import output_directory\n"
        f"with output_directory(pathlib.Path({str(tmp_path / 'out')!r}), verb='prepare', config=Config()):\n"
        "    print('began', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline() == b"began\n"
        with pytest.raises(OutputError, match=rf"written by another `dllm2rec prepare` \(process {other.pid}\)"):
            write(tmp_path / "out", overwrite=True)


def test_a_run_whose_directory_was_taken_does_not_finish_it(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="another `dllm2rec prepare` began"),
        output_directory(tmp_path / "out", verb="prepare", config=CONFIG),
    ):
        write_text(tmp_path / "out" / UNFINISHED_FILE, Unfinished(verb="prepare", kept=[]).model_dump_json())
    assert not (tmp_path / "out" / MANIFEST_FILE).exists()


def test_existing_output_is_refused_without_overwrite(tmp_path: Path) -> None:
    write(tmp_path / "out")
    with pytest.raises(OutputError, match=r"out already holds the output of `dllm2rec prepare`.*--overwrite True"):
        write(tmp_path / "out", "new")
    assert (tmp_path / "out" / "part.txt").read_text() == "one"


def test_output_of_another_verb_is_never_replaced(tmp_path: Path) -> None:
    write(tmp_path / "out", verb="label")
    with pytest.raises(OutputError, match="the output of `dllm2rec label`: choose another --output"):
        write(tmp_path / "out", overwrite=True)


def test_foreign_directory_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="did not make"):
        write(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "thesis.tex").exists()


def test_foreign_file_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="did not make"):
        write(tmp_path / "out", overwrite=True)


def test_empty_directory_is_free(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write(tmp_path / "out")
    assert (tmp_path / "out" / "part.txt").exists()


def test_parent_that_is_a_file_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot be written \(Not a directory\): choose another --output"):
        write(tmp_path / "file" / "out")


def test_fingerprint_depends_on_names_and_contents_only(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "x").write_text("1")
        (tmp_path / name / "y").write_text("2")
    (tmp_path / "b" / MANIFEST_FILE).write_text("not counted")
    first = fingerprint(tmp_path / "a")
    assert fingerprint(tmp_path / "b") == first
    (tmp_path / "b" / "y").write_text("3")
    assert fingerprint(tmp_path / "b") != first
    (tmp_path / "a" / "y").rename(tmp_path / "a" / "z")
    assert fingerprint(tmp_path / "a") != first


def test_fingerprint_of_a_file_ignores_its_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("1")
    (tmp_path / "c").write_text("2")
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b") != fingerprint(tmp_path / "c")


def test_input_made_from_something_else_is_stale(tmp_path: Path) -> None:
    write(tmp_path / "data1", "one")
    write(tmp_path / "data2", "two")
    first, second = read_manifest(tmp_path / "data1"), read_manifest(tmp_path / "data2")
    write(tmp_path / "labels", verb="label", dataset=first.fingerprint)
    labels = read_manifest(tmp_path / "labels", "label")
    check_made_from(tmp_path / "labels", labels, "dataset", tmp_path / "data1", first)
    with pytest.raises(StaleInputError, match=r"labels was made from another dataset.*run `dllm2rec label` again"):
        check_made_from(tmp_path / "labels", labels, "dataset", tmp_path / "data2", second)
    with pytest.raises(StaleInputError, match="another teacher"):
        check_made_from(tmp_path / "labels", labels, "teacher", tmp_path / "data1", first)


@pytest.mark.parametrize("content", [None, "", "{", '{"verb": "prepare"}'])
def test_unfinished_or_damaged_input_names_the_verb_to_run(tmp_path: Path, content: str | None) -> None:
    (tmp_path / "in").mkdir()
    if content is not None:
        (tmp_path / "in" / MANIFEST_FILE).write_text(content)
    with pytest.raises(StaleInputError, match="run `dllm2rec prepare --output "):
        read_manifest(tmp_path / "in", "prepare")


def test_input_of_another_verb_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "in", verb="label")
    with pytest.raises(StaleInputError, match="made by `dllm2rec label`, not by `dllm2rec prepare`"):
        read_manifest(tmp_path / "in", "prepare")
