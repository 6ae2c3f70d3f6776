"""The synthetic log: choices follow the attributes that titles name."""

import numpy as np
import pytest

from data_prep.config import SyntheticConfig
from data_prep.synthetic import EPOCH, SECONDS_PER_DAY, generate
from data_prep.synthetic_catalogue import make_catalogue

CONFIG = SyntheticConfig(users=400, items=200)


@pytest.fixture(scope="module")
def choices():
    """User, item index and day of every choice, and the catalogue."""
    interactions, items = generate(CONFIG)
    index = {item: at for at, item in enumerate(items.columns["item_id"].to_pylist())}
    user = np.array(interactions.columns["user_id"].to_pylist())
    item = np.array([index[i] for i in interactions.columns["item_id"].to_pylist()])
    day = (interactions.columns["timestamp"].to_numpy() - EPOCH) / SECONDS_PER_DAY
    return user, item, day, make_catalogue(CONFIG)


def test_same_seed_same_data_other_seed_other_data():
    first, again, other = (generate(SyntheticConfig(users=50, items=100, seed=seed)) for seed in (3, 3, 4))
    assert first[0].columns.equals(again[0].columns)
    assert first[1].columns.equals(again[1].columns)
    assert not first[0].columns.equals(other[0].columns)
    assert not first[1].columns.equals(other[1].columns)


def test_every_user_stands_in_order_without_repeats(choices):
    user, item, day, _ = choices
    assert len(np.unique(user)) == CONFIG.users
    assert len(set(zip(user, item, strict=True))) == len(user)
    assert (np.diff(day)[user[1:] == user[:-1]] >= 0).all()
    assert np.unique(user, return_counts=True)[1].min() >= 3


def test_nothing_is_chosen_before_its_release(choices):
    _, item, day, catalogue = choices
    assert (day >= catalogue.release[item] - 1 / SECONDS_PER_DAY).all()
    assert ((day >= 0) & (day <= CONFIG.days)).all()


@pytest.mark.parametrize("attribute", ["genre", "platform", "series"])
def test_neighbouring_choices_share_attributes_more_than_chance(choices, attribute):
    user, item, _, catalogue = choices
    values = getattr(catalogue, attribute)[item]
    same_user = user[1:] == user[:-1]
    together = (values[1:] == values[:-1])[same_user].mean()
    shuffled = np.random.default_rng(0).permutation(values)
    by_chance = (shuffled[1:] == shuffled[:-1]).mean()
    assert together > 1.4 * by_chance


def test_popularity_is_skewed_and_some_items_are_sparse(choices):
    _, item, _, _ = choices
    counts = np.sort(np.bincount(item, minlength=CONFIG.items))
    assert counts[-CONFIG.items // 10 :].sum() > 0.25 * counts.sum()
    assert (counts < 5).mean() > 0.05


def test_pure_exploration_forgets_taste():
    """With all choices made by popularity, platforms of neighbouring choices agree no more than by chance."""
    config = CONFIG.model_copy(update={"exploration": 1.0})
    interactions, items = generate(config)
    index = {item: at for at, item in enumerate(items.columns["item_id"].to_pylist())}
    user = np.array(interactions.columns["user_id"].to_pylist())
    values = make_catalogue(config).platform[[index[i] for i in interactions.columns["item_id"].to_pylist()]]
    together = (values[1:] == values[:-1])[user[1:] == user[:-1]].mean()
    shuffled = np.random.default_rng(0).permutation(values)
    assert together == pytest.approx((shuffled[1:] == shuffled[:-1]).mean(), abs=0.03)


def test_more_users_do_not_change_earlier_blocks():
    whole, more = (generate(SyntheticConfig(users=users, items=60))[0].columns for users in (1_000, 1_010))
    assert more.slice(0, whole.num_rows).equals(whole)
    assert len(set(more["user_id"].to_pylist())) == 1_010


def test_users_who_own_all_that_is_on_sale_stop():
    interactions, _ = generate(SyntheticConfig(users=40, items=50, mean_length=100, late_items=0.5, days=30))
    table = interactions.columns.to_pandas()
    assert not table.duplicated(["user_id", "item_id"]).any()
    assert table.groupby("user_id").size().between(3, 50).all()


def test_series_go_on_with_the_next_instalment(choices):
    user, item, _, catalogue = choices
    steps = []
    for name in np.unique(user):
        games = item[(user == name) & (catalogue.series[item] > 0)]
        for series in np.unique(catalogue.series[games]):
            steps.extend(np.diff(catalogue.number[games[catalogue.series[games] == series]]).tolist())
    assert steps.count(1) > 1.5 * steps.count(-1)  # without the bonus for the next one both are as frequent
