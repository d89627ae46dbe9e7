"""Which accounts are one owner's: a list through the accounts, kept up as accounts are announced.

What an owner holds in all of them is asked for one owner at a time, and an owner of one account is told
from one number in its row.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from exchange.compiled import compiled, inlined
from features.state import State


@inlined
def assign(state: State, key: int, owner: int) -> None:
    """Make an account that of an owner, -1 for nobody, and of no other."""
    account = state.account[key]
    if account.owner == owner:
        return
    if account.owner >= 0:
        _leave(state, key)
    account.owner = owner
    account.owner_next = -1
    account.owner_before = -1
    if owner >= 0:
        row = state.owner[owner]
        account.owner_next = row.first_account
        if row.first_account >= 0:
            state.account[row.first_account].owner_before = key
        row.first_account = key
        row.members += 1


@inlined
def _leave(state: State, key: int) -> None:
    """Take an account out of its owner's list."""
    account = state.account[key]
    row = state.owner[account.owner]
    if account.owner_before >= 0:
        state.account[account.owner_before].owner_next = account.owner_next
    else:
        row.first_account = account.owner_next
    if account.owner_next >= 0:
        state.account[account.owner_next].owner_before = account.owner_before
    row.members -= 1


@compiled
def accounts_of(state: State, owner: int) -> npt.NDArray[np.int64]:
    """Ids of an owner's accounts in rising order, whether they hold anything or not."""
    keys = np.empty(state.owner[owner].members, np.int64)
    key = state.owner[owner].first_account
    for place in range(len(keys)):
        keys[place] = key
        key = state.account[key].owner_next
    keys.sort()
    return keys
