"""A generated venue: prices, traders and what the venue does to them, as the tables of a dataset."""
