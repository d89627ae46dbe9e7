"""The tables of an account history: their columns, keys and what a value may be.

One description for all who read or write rows of a venue: the Parquet reader and writer, `perprisk
check` and the service's decoder of events. Standard library only, so that anything may import it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["accounts", "markets"]
ColumnType = Literal["time", "string", "float", "int", "floats", "tiers"]
Bound = Literal["any", "not_negative", "positive"]

FORMAT = "account-history"
VERSION = 1
KINDS: tuple[Kind, ...] = ("accounts", "markets")

MARGIN_MODES = ("cross", "isolated")
FILL_KINDS = ("trade", "liquidation", "deleverage")
DEFAULT_KINDS = ("liquidation", "negative_equity", "deleverage")


class Column(NamedTuple):
    """A column: an optional one may be absent or null, `bound` holds for every number in it.

    Types: `time` (microseconds, UTC), `string`, `float`, `int`, `floats` (a list of floats) and
    `tiers` (a list of TIER structs). Numbers are finite.
    """

    name: str
    type: ColumnType
    optional: bool = False
    bound: Bound = "any"
    choices: tuple[str, ...] = ()


class Table(NamedTuple):
    """A table: no two rows share a `key` (none: rows may be alike); `time` names the column that says when.

    `needed_by` are the kinds of dataset that cannot do without it; `of_accounts` tells rows about an
    account from rows about the market.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    time: str | None = "time"
    needed_by: tuple[Kind, ...] = ()
    of_accounts: bool = False

    def column(self, name: str) -> Column:
        """The column of that name; KeyError where there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    def has(self, name: str) -> bool:
        """Whether the table has a column of that name, optional or not."""
        return any(column.name == name for column in self.columns)


def _needed(
    name: str, type_: ColumnType = "float", bound: Bound = "any", choices: tuple[str, ...] = ()
) -> Column:
    return Column(name, type_, False, bound, choices)


def _optional(name: str, type_: ColumnType = "float", bound: Bound = "any") -> Column:
    return Column(name, type_, True, bound)


_TIME = _needed("time", "time")
_MARKET = _needed("market", "string")
_ASSET = _needed("asset", "string")
_ACCOUNT = _needed("account_id", "string")

TIER = (
    _optional("notional_cap_usd", bound="positive"),
    _needed("initial_margin_rate", bound="not_negative"),
    _needed("maintenance_margin_rate", bound="not_negative"),
)
"""Fields of one tier; a tier without a cap is the last."""

_ALL = (
    Table(
        "markets",
        (
            _TIME,
            _MARKET,
            _needed("tick_size", bound="positive"),
            _needed("lot_size", bound="positive"),
            _needed("taker_fee_rate"),
            _needed("liquidation_fee_rate", bound="not_negative"),
            _needed("funding_interval_s", "int", "positive"),
            _needed("tiers", "tiers"),
        ),
        ("time", "market"),
        needed_by=("accounts", "markets"),
    ),
    Table(
        "assets",
        (
            _ASSET,
            _needed("collateral_weight", bound="not_negative"),
            _needed("liability_weight", bound="not_negative"),
        ),
        ("asset",),
        time=None,
    ),
    Table("asset_prices", (_TIME, _ASSET, _needed("price", bound="positive")), ("time", "asset")),
    Table(
        "market_bars",
        (
            _TIME,
            _MARKET,
            _needed("mark_close", bound="positive"),
            _optional("index_close", bound="positive"),
            _optional("mark_open", bound="positive"),
            _optional("mark_high", bound="positive"),
            _optional("mark_low", bound="positive"),
            _optional("volume_usd"),
            _optional("open_interest_usd"),
        ),
        ("time", "market"),
        needed_by=("accounts", "markets"),
    ),
    Table(
        "book_depth",
        (
            _TIME,
            _MARKET,
            _needed("best_bid", bound="positive"),
            _needed("best_ask", bound="positive"),
            _needed("distance_bps", "floats", "not_negative"),
            _needed("bid_usd", "floats", "not_negative"),
            _needed("ask_usd", "floats", "not_negative"),
        ),
        ("time", "market"),
    ),
    Table("funding", (_TIME, _MARKET, _needed("funding_rate")), ("time", "market")),
    Table(
        "accounts",
        (
            _ACCOUNT,
            _needed("opened_time", "time"),
            _optional("owner_id", "string"),
            _needed("margin_mode", "string", choices=MARGIN_MODES),
        ),
        ("account_id",),
        time="opened_time",
        needed_by=("accounts",),
        of_accounts=True,
    ),
    Table(
        "transfers",
        (_TIME, _ACCOUNT, _needed("amount_usd"), _optional("sequence", "int")),
        (),
        of_accounts=True,
    ),
    Table(
        "fills",
        (
            _TIME,
            _ACCOUNT,
            _MARKET,
            _needed("quantity"),
            _needed("price", bound="positive"),
            _needed("fee_usd"),
            _needed("kind", "string", choices=FILL_KINDS),
            _optional("sequence", "int"),
        ),
        (),
        of_accounts=True,
    ),
    Table(
        "margin_rates",
        (
            _TIME,
            _ACCOUNT,
            _needed("initial_margin_rate", bound="not_negative"),
            _needed("maintenance_margin_rate", bound="not_negative"),
        ),
        ("time", "account_id"),
        of_accounts=True,
    ),
    Table(
        "account_snapshots",
        (
            _TIME,
            _ACCOUNT,
            _needed("equity_usd"),
            _needed("collateral_usd"),
            _needed("initial_margin_usd"),
            _needed("maintenance_margin_usd"),
            _optional("open_orders"),
        ),
        ("time", "account_id"),
        of_accounts=True,
    ),
    Table(
        "position_snapshots",
        (
            _TIME,
            _ACCOUNT,
            _MARKET,
            _needed("quantity"),
            _optional("entry_price", bound="positive"),
            _optional("quote_usd"),
            _optional("isolated_collateral_usd"),
        ),
        ("time", "account_id", "market"),
        of_accounts=True,
    ),
    Table(
        "balance_snapshots",
        (_TIME, _ACCOUNT, _ASSET, _needed("amount")),
        ("time", "account_id", "asset"),
        of_accounts=True,
    ),
    Table(
        "default_events",
        (
            _TIME,
            _ACCOUNT,
            _needed("kind", "string", choices=DEFAULT_KINDS),
            _optional("market", "string"),
            _optional("notional_usd"),
            _needed("shortfall_usd"),
            _optional("time_lower", "time"),
        ),
        ("time", "account_id", "kind", "market"),
        needed_by=("accounts",),
        of_accounts=True,
    ),
    Table("observations", (_TIME,), ()),
    Table(
        "insurance_fund",
        (_TIME, _needed("balance_usd"), _optional("change_usd"), _optional("reason", "string")),
        (),
    ),
)

TABLES: dict[str, Table] = {table.name: table for table in _ALL}

ONE_OF = (("fills", "transfers"), ("account_snapshots", "position_snapshots"))
"""A dataset of kind `accounts` needs all tables of at least one of these."""

PARENT = {"position_snapshots": "account_snapshots", "balance_snapshots": "account_snapshots"}
"""Tables whose rows belong to the row with the same time and account in another table."""
