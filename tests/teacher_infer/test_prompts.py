from teacher_infer.prompts import fingerprint, fitted, prompt, quoted, response, title_of

TITLES = ["Alpha", 'The "Big" One', "Gamma"]


def words(text):
    return len(text.split())


def test_history_stands_quoted_oldest_first_before_the_marker():
    text = prompt(TITLES)
    assert text.index('"Alpha"') < text.index("\"The 'Big' One\"") < text.index('"Gamma"') < text.index("Answer:")
    assert text.endswith("Answer:")


def test_a_response_reads_back_as_its_title():
    assert title_of(response("Alpha: Part 2")) == "Alpha: Part 2"
    assert title_of(response('The "Big" One')) == "The 'Big' One"


def test_broken_answers_still_give_a_title():
    assert title_of(' "Alpha') == "Alpha"
    assert title_of("Alpha\nBeta") == "Alpha"
    assert title_of(' "Alpha", "Beta"') == "Alpha"
    assert title_of("  ") == ""


def test_oldest_titles_are_dropped_until_the_prompt_fits():
    text, dropped = fitted(prompt, TITLES, words, words(prompt(TITLES[1:])))
    assert (text, dropped) == (prompt(TITLES[1:]), 1)
    assert fitted(prompt, TITLES, words, 100) == (prompt(TITLES), 0)


def test_a_single_title_that_does_not_fit_is_cut():
    text, dropped = fitted(prompt, ["Old", "x" * 10_000], len, 200)
    assert dropped == 1
    assert len(text) <= 200
    assert quoted("xx")[:-1] in text


def test_a_limit_below_the_empty_prompt_ends():
    assert fitted(prompt, ["Alpha"], words, 1)[0] == prompt(["A"]).replace('"A"', '"A"')


def test_fingerprint_names_the_template():
    assert len(fingerprint()) == 64
