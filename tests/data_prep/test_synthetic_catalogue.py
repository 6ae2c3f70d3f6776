"""The synthetic catalogue."""

import numpy as np
import pytest

from data_prep.config import SyntheticConfig
from data_prep.synthetic_catalogue import GENRES, NO_GENRE, PLATFORMS, make_catalogue


@pytest.mark.parametrize("items", [50, 480, 6_000])
def test_titles_are_unique_and_say_platform_and_genre(items):
    catalogue = make_catalogue(SyntheticConfig(items=items))
    assert len(set(catalogue.titles)) == items
    nouns = [set(names.split()) for names, _ in GENRES.values()]
    for title, genre, series, platform in zip(
        catalogue.titles, catalogue.genre, catalogue.series, catalogue.platform, strict=True
    ):
        assert PLATFORMS[platform] in title
        if series:
            assert genre != NO_GENRE
            assert nouns[genre] & set(title.replace(":", " ").split())


def test_sequels_come_later():
    catalogue = make_catalogue(SyntheticConfig())
    same = catalogue.series[:, None] == catalogue.series
    platform = catalogue.platform[:, None] == catalogue.platform
    later = same & platform & (catalogue.number[:, None] > catalogue.number) & (catalogue.series > 0)
    assert later.any()
    assert (catalogue.release[:, None] >= np.broadcast_to(catalogue.release, later.shape))[later].all()


def test_share_of_late_items():
    catalogue = make_catalogue(SyntheticConfig(late_items=0.2, days=1_000))
    assert (catalogue.release > 800).mean() == pytest.approx(0.2, abs=0.01)
    assert (catalogue.release <= 0).mean() > 0.3
