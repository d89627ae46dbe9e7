"""Which accounts are whose: the list through the accounts is what the newest rows say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from features import events as ev
from features.owners import accounts_of
from features.venue import Venue
from serving.batches import Columns

ACCOUNTS, OWNERS = 7, 3


@given(st.lists(st.tuples(st.integers(0, ACCOUNTS - 1), st.integers(-1, OWNERS - 1)), max_size=40))
def test_accounts_are_whose_the_newest_row_says(rows: list[tuple[int, int]]) -> None:
    venue = Venue()
    for number in range(ACCOUNTS):
        venue.account(f"account {number}")
    for number in range(OWNERS):
        venue.owner(f"owner {number}")
    columns = Columns()
    for time_us, (account, owner) in enumerate(rows):
        columns.add(ev.ACCOUNT, time_us, account, owner, (0.0, 0.0))
    venue.apply(columns.batch())
    venue.reserve(Columns().batch())  # tables for the names, where there were no rows
    newest = dict(rows)
    for owner in range(OWNERS):
        expected = sorted(account for account, of in newest.items() if of == owner)
        assert accounts_of(venue.state, owner).tolist() == expected
        assert int(venue.state.owner["members"][owner]) == len(expected)
