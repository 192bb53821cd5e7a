# SPDX-License-Identifier: Apache-2.0
"""The version of this code, whichever distribution it came in."""

__all__ = ["VERSION"]

VERSION = "0.1.0"
