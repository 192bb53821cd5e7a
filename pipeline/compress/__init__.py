# SPDX-License-Identifier: Apache-2.0
"""Compression: one frozen config and one function a method.

configs       the options of every method, as they stand in `params.yaml`
context       what a pass is given, and what it returns
recipe        passes in order, each recorded with what it left
channels      whole channels, or neurons, are removed; its parts are the modules channel_*, axes and macs
recovery      training after a pass
schedules     shrinking and recovery in turn
static_int8   static int8 quantization of an ONNX file
"""
