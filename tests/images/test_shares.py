"""Shares of a catalog: nothing is left out, and nothing is done twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gelkit
from gelkit.images.catalog import Catalog, CatalogImage, Unreadable
from gelkit.images.shares import Share, parse_share

NAMES = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
    | st.sampled_from(["gel/\udcff.png", "gel/1.png", "a.tif[page 2]"]),
    unique=True,
)


@given(names=NAMES, count=st.integers(1, 40), unread=st.integers(0, 3))
def test_shares_are_disjoint_and_make_up_the_whole(
    names: list[str], count: int, unread: int
) -> None:
    """Images would be left out by all machines, or embedded by several."""
    whole = Catalog(
        "gels",
        tuple(CatalogImage(Path(name), name) for name in names[unread:]),
        skipped=("notes.txt",),
        unreadable=tuple(Unreadable(name, "a pipe") for name in names[:unread]),
    )
    shares = [Share(number, count).of(whole) for number in range(1, count + 1)]
    for part in ("images", "unreadable", "skipped"):
        dealt = [its for share in shares for its in getattr(share, part)]
        assert len(dealt) == len(set(dealt))
        assert set(dealt) == set(getattr(whole, part))
    order = {image: place for place, image in enumerate(whole.images)}
    for share in shares:
        places = [order[image] for image in share.images]
        assert places == sorted(places)


def test_a_share_does_not_depend_on_what_else_is_there() -> None:
    """A file added between two runs would move others to another machine's share."""
    names = [f"gel/{number}.png" for number in range(200)]
    for few in (names[:7], names[50:]):
        for number in range(1, 6):
            share = Share(number, 5)
            held = share.of(Catalog("gels", tuple(CatalogImage(Path(n), n) for n in few)))
            assert [image.name for image in held.images] == [n for n in few if share.holds(n)]
    sizes = [sum(Share(number, 5).holds(name) for name in names) for number in range(1, 6)]
    assert sum(sizes) == 200
    assert min(sizes) > 20  # (40 expected, standard deviation 5.7)
    assert [name for name in names[:8] if Share(1, 4).holds(name)] == ["gel/7.png"]


@pytest.mark.parametrize(
    "text", ["", "3", "0/4", "5/4", "1/0", "-1/4", "1/4/2", "1 / 4", "1/1000001"]
)
def test_what_is_no_share_is_refused(text: str) -> None:
    """A job array that counts from 0 would leave out the last share, and nobody would know."""
    with pytest.raises(gelkit.UsageError, match="Expected a share"):
        parse_share(text)


def test_a_share_is_read_as_it_is_written() -> None:
    """The third of sixteen machines would do another's work."""
    assert parse_share("3/16") == Share(3, 16)
    assert str(parse_share("3/16")) == "3/16"
