from tune.follow import reason_of, record_of, table

PROPOSAL = {"number": 4, "point": {"lam": 0.12345, "student": "sasrec"}, "seed": 1, "parent": 2, "settings": {}}
HISTORY = [{"epoch": 1, "loss": 2.0, "ndcg@20": 0.3}, {"epoch": 2, "loss": 1.0, "ndcg@20": 0.2}]


def test_a_record_says_how_a_trial_ended():
    last = {"history": HISTORY, "complete": True, "seconds": 3.0, "measures": {"size": 9.0}}
    kept = record_of(PROPOSAL, last)
    assert (kept.number, kept.seed, kept.parent, kept.state) == (4, 1, 2, "complete")
    assert (kept.best("ndcg@20"), kept.best("size"), kept.seconds) == (0.3, 9.0, 3.0)
    assert record_of(PROPOSAL, last | {"complete": False}).state == "stopped early"


def test_a_trial_that_gave_a_reason_or_no_figure_failed():
    assert record_of(PROPOSAL, {"failed": "loss is nan"}).reason == "loss is nan"
    assert record_of(PROPOSAL, {}).state == "failed"


def test_the_table_shows_stage_best_and_time_left():
    running = [(PROPOSAL, {"history": HISTORY, "seconds": 3.0}), (PROPOSAL | {"number": 5}, {})]
    head, first, second = table(running, "ndcg@20", 10).splitlines()
    assert head.split()[:2] == ["trial", "stage"]
    assert "epoch 2/10" in first and "0.3000" in first and "≤ 12 s" in first and "lam 0.123, student sasrec" in first
    assert "epoch 0/10" in second


def test_the_reason_of_an_error_is_its_last_line():
    assert reason_of(RuntimeError("Traceback\n  somewhere\nValueError: too large")) == "ValueError: too large"
    assert reason_of(None) == "no reason given"
