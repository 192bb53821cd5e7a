# SPDX-License-Identifier: Apache-2.0
"""Models: the user's factory, weights, training, ONNX export, and what a file costs to run.

These modules import torch or onnx at their top; stages import them inside `run`, so that a stage that
needs neither starts fast.
"""
