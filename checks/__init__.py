# SPDX-License-Identifier: Apache-2.0
"""Checks judge. They are pure: evidence in, verdicts out, with numpy and the standard library.

Read in this order:

    evidence      what a probe recorded, example by example
    measurement   what a check returns: value, interval, n, method; no threshold
    protocol      the `Check` protocol and the built-in checks by name
    policy        `policy.yaml`: rules that bound measurements
    judge         one rule on one measurement: a finding with its verdict
    decision      all findings on one candidate: open or closed
    runner        runs the checks and turns whatever breaks into ERROR
    statistics    the tests and bounds behind the verdicts
"""
