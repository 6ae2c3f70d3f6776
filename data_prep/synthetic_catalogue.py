"""The synthetic catalogue: video games and accessories whose titles say what they are (docs/synthetic.md)."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations, product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from data_prep.config import SyntheticConfig

ADJECTIVES = (
    *("Crimson", "Silver", "Lost", "Iron", "Golden", "Frozen", "Hidden", "Electric", "Shadow", "Emerald", "Thunder"),
    *("Royal", "Solar", "Velvet", "Savage", "Silent", "Coral", "Midnight", "Rusty", "Burning", "Ancient", "Neon"),
    *("Stellar", "Wild"),
)
# genre: what its series are called, how its instalments go on
GENRES = {
    "racing": ("Circuit Rally Speedway Drift Velocity Motors", "Desert Rally,Night Grand Prix,Turbo Season,Street Cup"),
    "role-playing": ("Saga Prophecy Realm Crown Chronicle Relic", "Dragon Oath,Exiled King,Blade of Ash,Last Sorcerer"),
    "strategy": ("Empire Dominion Siege Legion Conquest Throne", "Age of War,Fallen Borders,Iron Treaty,Great March"),
    "puzzle": ("Blocks Riddle Tiles Mosaic Labyrinth Cipher", "Mind Twist,Hundred Rooms,Colour Trap,Missing Piece"),
    "platform": ("Hopper Rascals Leap Springs Acrobat Wobbler", "Sky Jump,Jungle Dash,Candy Castle,Bouncing Islands"),
    "shooter": ("Strike Squad Ops Frontline Recon Assault", "Zero Hour,Black Harbor,Sniper Line,Last Bullet"),
    "sports": ("League Soccer Tennis Hoops Golf Hockey", "Pro Season,World Cup,All Stars,Champions Tour"),
    "simulation": (
        "Farm City Airport Railway Zoo Hospital",
        "Harvest Days,Busy Streets,Four Seasons,Open for Business",
    ),
}
PLATFORMS = ("Orbit", "Orbit 2", "Pocket Nova", "Zenith", "PC")
PLATFORM_SHARE = (0.28, 0.22, 0.2, 0.15, 0.15)
SUCCESSOR = {0: 1}  # Orbit 2 follows Orbit
SUCCESSOR_LAUNCH = 0.3  # share of the days after which it is sold
NUMERALS = ("", " II", " III", " IV", " V")
EDITIONS = (" - Deluxe Edition", " - Collector's Edition")
# accessory: the genre that it serves, if any
ACCESSORIES = {
    "Wireless Controller": None,
    "Racing Wheel": "racing",
    "Flight Yoke": "simulation",
    "Headset": "shooter",
    "Carrying Case": None,
    "Memory Card": None,
}
COLOURS = ("Black", "Red", "White")
ACCESSORY_SHARE = 0.08
NO_GENRE = len(GENRES)


class Product(NamedTuple):
    """One item before it has a release day; series and number are 0 for accessories."""

    title: str
    genre: int
    series: int
    number: int
    platform: int
    story_time: float
    appeal: float


@dataclass(frozen=True)
class SyntheticCatalogue:
    """N items; ``release`` in days from the start of the log (negative: before it), ``appeal`` a log weight."""

    titles: list[str]
    genre: npt.NDArray[np.int64]
    series: npt.NDArray[np.int64]
    number: npt.NDArray[np.int64]
    platform: npt.NDArray[np.int64]
    release: npt.NDArray[np.float64]
    appeal: npt.NDArray[np.float64]


def make_catalogue(config: SyntheticConfig) -> SyntheticCatalogue:
    """Draw series, instalments, platforms and editions until there are ``config.items`` items, in random order."""
    rng = np.random.default_rng([config.seed, 0])
    products = _accessories(rng, round(config.items * ACCESSORY_SHARE))
    for series, first_name in enumerate(_first_names(rng), start=1):
        if len(products) >= config.items:
            break
        products += _series(rng, series, first_name)
    chosen = [products[i] for i in rng.permutation(config.items)]
    columns = [np.array(column) for column in list(zip(*chosen, strict=True))[1:]]
    genre, of_series, number, platform, story_time, appeal = columns
    release = _release_days(story_time, platform, config)
    return SyntheticCatalogue([p.title for p in chosen], genre, of_series, number, platform, release, appeal)


def _series(rng: np.random.Generator, series: int, first_name: str) -> list[Product]:
    """All instalments of one series, each on one or more platforms, some in a special edition."""
    genre = int(rng.integers(len(GENRES)))
    nouns, subtitles = list(GENRES.values())[genre]
    name = f"{first_name} {rng.choice(nouns.split())}"
    story_time, appeal = rng.uniform(0, 1), rng.normal(0, 0.8)
    products = []
    for number in range(1, int(rng.integers(1, len(NUMERALS) + 1)) + 1):
        subtitle = f": {rng.choice(subtitles.split(','))}" if number > 1 else ""
        platforms = rng.choice(len(PLATFORMS), size=int(rng.integers(1, 3)), replace=False, p=PLATFORM_SHARE)
        editions = ["", str(rng.choice(EDITIONS))] if rng.random() < 0.2 else [""]
        for platform, edition in product(platforms, editions):
            title = f"{name}{NUMERALS[number - 1]}{subtitle}{edition} ({PLATFORMS[platform]})"
            liking = appeal + rng.normal(0, 0.6) - bool(edition)
            products.append(Product(title, genre, series, number, int(platform), story_time, liking))
        story_time += rng.uniform(0.15, 0.35)
    return products


def _first_names(rng: np.random.Generator) -> Iterator[str]:
    """Names that never repeat: single adjectives, then pairs, then triples, each in random order."""
    for words in (1, 2, 3):
        names = [" ".join(name) for name in permutations(ADJECTIVES, words)]
        yield from (names[at] for at in rng.permutation(len(names)))


def _accessories(rng: np.random.Generator, count: int) -> list[Product]:
    genres = list(GENRES)
    kinds = list(product(ACCESSORIES.items(), range(len(PLATFORMS)), COLOURS))
    products = []
    for at in rng.permutation(len(kinds))[:count]:
        (kind, serves), platform, colour = kinds[at]
        genre = genres.index(serves) if serves else NO_GENRE
        title = f"{PLATFORMS[platform]} {kind} ({colour})"
        products.append(Product(title, genre, 0, 0, platform, rng.uniform(0, 1.5), rng.normal(-0.5, 0.6)))
    return products


def _release_days(
    story_time: npt.NDArray[np.float64], platform: npt.NDArray[np.int64], config: SyntheticConfig
) -> npt.NDArray[np.float64]:
    """Half of the items are there from the start; the late share comes in the last fifth; order as in story time."""
    rank = np.argsort(np.argsort(story_time, kind="stable")) / len(story_time)
    early = 1 - config.late_items
    share = np.interp(rank, [0, early / 2, early, 1], [-0.5, 0, 0.8, 0.97])
    on_successor = np.isin(platform, list(SUCCESSOR.values()))
    return config.days * np.where(on_successor, np.maximum(share, SUCCESSOR_LAUNCH), share)
