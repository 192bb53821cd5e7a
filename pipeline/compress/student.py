# SPDX-License-Identifier: Apache-2.0
"""Student: a smaller network of the user's takes the baseline's place, untrained; recovery trains it."""

from __future__ import annotations

from torch import nn

from checks.errors import ModelError
from pipeline.compress.configs import Student
from pipeline.compress.context import Applied, Context
from pipeline.models.export import cost_of
from pipeline.models.network import Preprocessed, build_network

__all__ = ["take_student"]


def take_student(module: nn.Module, config: Student, context: Context) -> Applied:
    """Build the user's smaller network behind the baseline's preprocessing.

    Args:
        module: Not used: a student starts from nothing; first in a recipe, nothing is lost.
        config: What builds it.
        context: Gives preprocessing, shapes, classes and the baseline's cost.

    Raises:
        ModelError: if the factory lies outside `model.code`, raises, or returns no network with such scores,
            or one with neither fewer multiply-accumulates nor fewer bytes than the baseline.
    """
    del module
    where = f"student.factory ({config.factory})"
    code, file = context.model.code, config.factory.rpartition(":")[0]
    if not (context.root / file).resolve().is_relative_to((context.root / code).resolve()):
        raise ModelError(
            f"expected a file that is model.code or lies in it ({code}), got {file!r}",
            where=where,
            hint="let `model.code` name the folder that holds both networks: then a change of either is seen",
        )
    model = context.model.model_copy(update={"factory": config.factory, "arguments": config.arguments})
    dataset = context.dataset
    try:
        network = build_network(model, context.shape, len(dataset.classes), context.root, context.seed)
        student = Preprocessed(network, model, dataset.pixel_max).eval()
        cost = cost_of(student, context.shape)
    except ModelError as error:
        raise ModelError(error.what, where=where, hint=error.hint) from error
    baseline = context.baseline
    if cost.macs >= baseline.macs and cost.bytes >= baseline.bytes:
        raise ModelError(
            f"expected fewer multiply-accumulates or bytes than the baseline's {baseline.macs} and "
            f"{baseline.bytes}, got {cost.macs} and {cost.bytes}",
            where=where,
            hint="a student is smaller than its teacher",
        )
    return Applied(student)
