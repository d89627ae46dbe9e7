"""One book of accounts under prices that someone thought up: who is closed, and who pays."""
