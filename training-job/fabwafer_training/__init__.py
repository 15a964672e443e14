"""Retraining: from labelled wafer maps to a model version in the model store."""

import os

# Before NumPy is imported: the matrices of scaling are small, and BLAS threads spend their time waiting for each other
# (0.8 ms a map instead of 0.06 on a busy machine with two cores). torch has threads of its own.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
