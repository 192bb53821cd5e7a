# SPDX-License-Identifier: Apache-2.0
"""Data: sources of images, splits, slice formulas, the prepared dataset, and what it must satisfy."""
