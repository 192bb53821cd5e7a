# SPDX-License-Identifier: Apache-2.0
"""Compression passes: one frozen config and one function a method.

channels      structured channel pruning to a target of multiply-accumulates
static_int8   static int8 quantization of an ONNX file
"""
