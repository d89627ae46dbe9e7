"""The command line and its stages: datasets in, models, scores and reports out."""
