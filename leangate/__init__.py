# SPDX-License-Identifier: Apache-2.0
"""LeanGate makes a vision model small, proves it did no harm, and lets only proven ones through.

This package is the face that other repositories install: the command `leangate`. Behind it `pipeline`
produces (data, models, evidence, bundle, registration) and `checks` judges.
"""

from pipeline.version import VERSION

__all__ = ["__version__"]

__version__ = VERSION
