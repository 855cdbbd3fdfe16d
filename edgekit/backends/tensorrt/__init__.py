"""TensorRT and TensorRT-RTX: one code path; what differs is in ``flavour``."""
