# SPDX-License-Identifier: Apache-2.0
"""The model card, and what it is written from.

Read in this order:

    contents    the files of a bundle, re-hashed and held against the decision
    figures     how numbers of the decision are printed
    model_card  the card, the short card of the registry
    sections    what was decided and measured
    rules       the policy's rules, searches, single examples
    provenance  where the data came from, how to verify
    compliance  which evidence speaks to which heading of which framework
    front       the YAML block that model hubs read
"""
