# SPDX-License-Identifier: Apache-2.0
"""The model card, and what it is written from.

Read in this order:

    contents    the files of a bundle, re-hashed and held against the decision
    figures     numbers of the decision, by metric and slice, and how they are printed
    model_card  the card, the short card of the registry
    sections    what was decided and measured
    provenance  where the data came from, how to verify
    compliance  which evidence speaks to which heading of which framework
    front       the YAML block that model hubs read
    markdown    text from data, escaped; tables
"""
