"""The built-in data set: users who choose games by taste, platform, series and season (docs/synthetic.md)."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from data_prep.config import SyntheticConfig
from data_prep.log import Floats, Ints, Mask
from data_prep.readers.rawfiles import RawTable
from data_prep.synthetic_catalogue import (
    GENRES,
    NO_GENRE,
    PLATFORM_SHARE,
    PLATFORMS,
    SUCCESSOR,
    SUCCESSOR_LAUNCH,
    SyntheticCatalogue,
    make_catalogue,
)

EPOCH = 1_577_836_800  # 2020-01-01 UTC, in seconds
SECONDS_PER_DAY = 86_400
USERS_PER_BLOCK = 1_000  # bounds the memory of the choices
SHORTEST = 3

# Utilities, in units of the Gumbel noise of a choice.
GENRE_FLOOR = 0.03  # a genre's utility is the log of its share in a user's taste, plus this
WRONG_PLATFORM = -4.0
NEXT_INSTALMENT = 2.5
SAME_SERIES = 0.7
SAME_INSTALMENT = -3.0  # the game is owned already, on another platform or in another edition
SAME_GENRE_AS_LAST = 0.6
NEW_RELEASE = 1.0
NEW_RELEASE_DAYS = 45.0


def generate(config: SyntheticConfig) -> tuple[RawTable, RawTable]:
    """Draw the log (seconds since 1970) and the items; the same config gives the same tables."""
    catalogue = make_catalogue(config)
    blocks = range(0, config.users, USERS_PER_BLOCK)
    parts = [_choices(config, catalogue, first, min(USERS_PER_BLOCK, config.users - first)) for first in blocks]
    user, item, day = (np.concatenate(column) for column in zip(*parts, strict=True))
    item_ids = np.array([f"g{index:05d}" for index in range(config.items)])
    log = {
        "user_id": pa.array([f"u{index}" for index in user]),
        "item_id": pa.array(item_ids[item]),
        "timestamp": np.floor(EPOCH + day * SECONDS_PER_DAY),
    }
    items = {"item_id": pa.array(item_ids), "title": pa.array(catalogue.titles)}
    return (
        RawTable(pa.table(log), lambda row: f"synthetic interaction {row + 1}"),
        RawTable(pa.table(items), lambda row: f"synthetic item {row + 1}"),
    )


@dataclass(frozen=True)
class People:
    """U users: when they choose, and what they like before and after their change of taste."""

    days: Floats  # [U, longest], ascending; infinite after a user's last choice
    taste: Floats  # [2, U, genres + 1], log shares
    taste_changes: Floats  # [U], day
    owns: Mask  # [U, platforms]
    upgrades: Floats  # [U], day from which the successor of the owned platform is owned too


def _choices(
    config: SyntheticConfig, catalogue: SyntheticCatalogue, first: int, count: int
) -> tuple[Ints, Ints, Floats]:
    """Choices of the users ``first`` … ``first + count - 1``: user, item and day, parallel, user by user."""
    rng = np.random.default_rng([config.seed, 1, first])
    people = _people(rng, config, count)
    chosen = np.full(people.days.shape, -1)
    owned = np.zeros((count, config.items), dtype=bool)
    reached = np.zeros((count, catalogue.series.max() + 1), dtype=np.int64)  # highest instalment owned
    last_genre = np.full(count, -1)
    for step, day in enumerate(people.days.T):
        active = np.flatnonzero(np.isfinite(day))
        utility = _utility(people, catalogue, active, day[active], reached, last_genre)
        explores = rng.random(len(active)) < config.exploration
        utility[explores] = catalogue.appeal
        utility += rng.gumbel(size=utility.shape)
        utility[owned[active] | (catalogue.release > day[active, None])] = -np.inf
        item = utility.argmax(axis=1)
        finds = np.isfinite(utility.max(axis=1))  # else nothing on sale is left to buy
        active, item = active[finds], item[finds]
        chosen[active, step] = item
        owned[active, item] = True
        series = catalogue.series[item]
        reached[active, series] = np.maximum(reached[active, series], catalogue.number[item])
        last_genre[active] = catalogue.genre[item]
    user, steps = np.nonzero(chosen >= 0)
    return user + first, chosen[user, steps], people.days[user, steps]


def _people(rng: np.random.Generator, config: SyntheticConfig, count: int) -> People:
    lengths = SHORTEST + rng.poisson(rng.gamma(2.0, (config.mean_length - SHORTEST) / 2, count))
    start = rng.uniform(0, 0.85, count) * config.days
    span = np.minimum(rng.exponential(0.5, count) * config.days + 20, config.days - start)
    days = start[:, None] + rng.random((count, lengths.max())) * span[:, None]
    days[np.arange(lengths.max()) >= lengths[:, None]] = np.inf
    taste = rng.dirichlet(np.full(len(GENRES), 0.4), (2, count))
    taste = np.concatenate([taste, np.full((2, count, 1), 1 / len(GENRES))], axis=2)  # accessories of no genre
    first_platform = _draw_platform(rng, count)
    owns = np.eye(len(PLATFORMS), dtype=bool)[first_platform]
    second = rng.random(count) < 0.3
    owns[second] |= np.eye(len(PLATFORMS), dtype=bool)[_draw_platform(rng, int(second.sum()))]
    changes = np.where(rng.random(count) < 0.4, rng.uniform(0, config.days, count), np.inf)
    upgrade = rng.uniform(SUCCESSOR_LAUNCH, 1, count) * config.days
    upgrades = np.where(rng.random(count) < 0.7, upgrade, np.inf)
    return People(np.sort(days, axis=1), np.log(taste + GENRE_FLOOR), changes, owns, upgrades)


def _draw_platform(rng: np.random.Generator, count: int) -> Ints:
    return rng.choice(len(PLATFORMS), count, p=PLATFORM_SHARE)


def _utility(
    people: People, catalogue: SyntheticCatalogue, active: Ints, day: Floats, reached: Ints, last_genre: Ints
) -> Floats:
    """What each item [A, N] is worth to each active user on the user's day, before noise."""
    taste = people.taste[(day > people.taste_changes[active]).astype(np.int64), active]
    owns = people.owns[active].copy()
    upgraded = day > people.upgrades[active]
    for old, new in SUCCESSOR.items():
        owns[:, new] |= owns[:, old] & upgraded
    utility = catalogue.appeal + taste[:, catalogue.genre]
    utility += np.where(owns[:, catalogue.platform], 0.0, WRONG_PLATFORM)
    ahead = catalogue.number - reached[active][:, catalogue.series]
    begun = (reached[active][:, catalogue.series] > 0) & (catalogue.series > 0)
    utility += begun * np.select([ahead == 1, ahead == 0], [NEXT_INSTALMENT, SAME_INSTALMENT], SAME_SERIES)
    utility += SAME_GENRE_AS_LAST * (catalogue.genre == last_genre[active, None]) * (catalogue.genre != NO_GENRE)
    age = np.maximum(day[:, None] - catalogue.release, 0)  # items not yet released are masked by the caller
    return utility + NEW_RELEASE * np.exp(-age / NEW_RELEASE_DAYS)
