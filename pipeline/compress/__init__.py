# SPDX-License-Identifier: Apache-2.0
"""Compression: one frozen config and one function a method.

configs       the options of every method, as they stand in `params.yaml`
context       what a pass is given, and what it returns
recipe        passes in order, each recorded with what it left
channels      whole channels are removed
blocks        whole residual blocks are removed
weights       single weights are set to zero
low_rank      a layer becomes two thinner ones
student       a smaller network takes the place
layers        layers by name, watched and replaced
recovery      training after a pass
schedules     shrinking and recovery in turn
static_int8   static int8 quantization of an ONNX file
"""
