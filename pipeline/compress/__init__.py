# SPDX-License-Identifier: Apache-2.0
"""Compression: one frozen config and one function a method.

configs       the options of every method, as they stand in `params.yaml`
context       what a pass is given, and what it returns
recipe        passes in order, each recorded with what it left

Passes on a torch network:

channels      whole channels, or neurons, are removed; its parts are the modules channel_*, axes and macs
blocks        whole residual blocks are removed
weights       single weights are set to zero
low_rank      a layer becomes two thinner ones
student       a smaller network takes the place
recovery      training after a pass: distillation, adversary
schedules     shrinking and recovery in turn, or at once
layers        layers by name, watched and replaced

Precisions of an ONNX file:

precisions    the methods by name
static_int8   static int8, calibrated; its parts are calibration, folding, equalization, qdq, bias_correction,
              sensitivity, portable
dynamic_int8  ranges of activations found at run time
weights_int8  weights stored as int8
fp16          16-bit floats
integers      what ONNX Runtime really runs in integers
speed         whether a file is slower than the float one
"""
