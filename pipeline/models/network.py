# SPDX-License-Identifier: Apache-2.0
"""The user's network, its weights, and its preprocessing as part of the model."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from checks.errors import ModelError
from pipeline.params import Model
from pipeline.user_code import call_function, load_function

__all__ = ["Preprocessed", "build_network", "load_weights", "save_weights"]


class Preprocessed(nn.Module):
    """A network behind its preprocessing, so that the exported file takes raw pixels.

    Maps `(N, C, H, W)` float32 in `[0, pixel_max]` to `(N, K)` scores: each channel is scaled to
    `[0, 1]`, has `mean` taken away and is divided by `std`.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, network: nn.Module, model: Model, pixel_max: int) -> None:
        super().__init__()
        self.network = network
        mean = torch.tensor(model.mean, dtype=torch.float64).view(1, -1, 1, 1)
        std = torch.tensor(model.std, dtype=torch.float64).view(1, -1, 1, 1)
        # One multiplication and one addition instead of three operations: exported graphs stay small.
        self.register_buffer("scale", (1 / (pixel_max * std)).float(), persistent=False)
        self.register_buffer("shift", (-mean / std).float(), persistent=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the scores of a batch of raw images."""
        scores: torch.Tensor = self.network(image * self.scale + self.shift)
        return scores


def build_network(
    model: Model, shape: tuple[int, int, int], classes: int, root: Path, seed: int
) -> nn.Module:
    """Build the user's network and check what it returns.

    Args:
        model: Section `model` of `params.yaml`.
        shape: `(C, H, W)` of an image.
        classes: Number of scores expected.
        root: Folder of `params.yaml`.
        seed: Of the initial weights.

    Raises:
        ModelError: if the factory raises, returns no module, or the module returns wrong scores.
    """
    where = f"params.yaml model.factory ({model.factory})"
    if len(model.mean) != shape[0]:
        raise ModelError(
            f"expected {shape[0]} means, one a channel, got {len(model.mean)}", where="params.yaml model.mean"
        )
    torch.manual_seed(seed)
    function = load_function(model.factory, root, where=where, error_type=ModelError)
    network = call_function(function, dict(model.arguments), where=where, error_type=ModelError)
    if not isinstance(network, nn.Module):
        raise ModelError(f"expected a torch.nn.Module, got {type(network).__name__}", where=where)
    try:
        with torch.no_grad():
            scores = network.eval()(torch.zeros(2, *shape))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ModelError(f"expected a batch of images {shape} to pass, got {error}", where=where) from error
    came = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
    if came != (2, classes):
        raise ModelError(f"expected scores of shape (2, {classes}) for two images, got {came}", where=where)
    return network


def load_weights(network: nn.Module, path: Path, where: str) -> None:
    """Load safetensors into `network`, every key and shape matching.

    Raises:
        ModelError: naming the keys, if the file is missing, corrupt, non-finite or of another network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(path)
        network.load_state_dict(weights, strict=True)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"expected a safetensors file, got {error}", where=where) from error
    except RuntimeError as error:
        text = " ".join(str(error).split())
        raise ModelError(f"expected the weights of this network, got {text}", where=where) from error
    broken = sorted(name for name, value in weights.items() if not torch.isfinite(value.float()).all())
    if broken:
        raise ModelError(f"expected finite weights, got NaN or infinity in {broken[:5]}", where=where)


def save_weights(network: nn.Module, path: Path) -> None:
    """Write the state of `network` as safetensors."""
    from safetensors.torch import save

    # As bytes and not as a file: then a full disk is an OSError like everywhere else.
    state = {name: value.detach().clone().contiguous() for name, value in network.state_dict().items()}
    path.write_bytes(save(state))
