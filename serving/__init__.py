"""Scoring, margin suggestions and the service; ONNX Runtime, numpy, numba and the web stack only."""
