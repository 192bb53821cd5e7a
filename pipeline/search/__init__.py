# SPDX-License-Identifier: Apache-2.0
"""Search for recipes: which passes, how far, and at which precision.

configs     section `search` of `params.yaml`
space       a recipe drawn from the ranges
halving     who of a bracket trains on: ranks and hypervolume
bench       builds a drawn recipe and measures it on the validation split
study       Optuna's storage and sampler, behind the words of this project
bracket     trials that train side by side, rung by rung
run         brackets until trials or budget are used up
worker      the same in a process of its own
results     what came of it: `trials.json`, the front, the winners
picture     the front as a picture
adopt       winners become recipes of `params.yaml`
"""
