"""The horizons at which default is predicted, and the columns of a score."""

from __future__ import annotations

HORIZONS_H = (1, 8, 24)

SCORE_COLUMNS = (
    "time",
    "account_id",
    "pd_liquidation_1h",
    "pd_liquidation_8h",
    "pd_liquidation_24h",
    "pd_negative_equity_24h",
    "expected_loss_usd",
    "static_initial_margin_rate",
    "initial_margin_rate",
    "maintenance_margin_rate",
    "status",
    "fallback_reason",
    "reason_1",
    "reason_2",
    "reason_3",
    "model_version",
)
