"""Labels, training, calibration, evaluation, export and the bundle that scoring loads."""
