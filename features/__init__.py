"""What was known at a time, as numbers: one definition for history and for the live service."""
