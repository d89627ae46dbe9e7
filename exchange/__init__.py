"""The venue: contracts, accounts and their arithmetic, pure and deterministic."""
