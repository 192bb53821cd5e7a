# SPDX-License-Identifier: Apache-2.0
"""One symmetric pool of attacks: whatever was crafted against either model is shown to both.

Gradient attacks (projected gradient descent, Madry et al. 2018, https://arxiv.org/abs/1706.06083) are
crafted on the differentiable twin of each model, gradient-free ones (Square, Andriushchenko et al. 2020,
https://arxiv.org/abs/1912.00049) on the ONNX file itself. Every outcome is what ONNX Runtime answers on the
final, projected images. Uniform noise of the same size is the control.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from checks.errors import ProbeError
from checks.evidence import Attacks
from pipeline.params import Attack
from pipeline.probes.art_import import import_art
from pipeline.probes.pool import ATTACKS
from pipeline.probes.session import decide, predict
from pipeline.progress import track

if TYPE_CHECKING:
    import onnxruntime
    import torch

    from pipeline.data.dataset import Split
    from pipeline.probes.twin import Twin

__all__ = ["Target", "measure_robustness", "project", "run_attacks"]

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

# Slack that keeps a measured perturbation from exceeding the budget by a rounding of the division.
SLACK = 1e-12

# Margin of a model that does not answer; finite, because attacks subtract margins from each other.
MOST_WRONG = np.float32(-1e30)


@dataclass(frozen=True)
class Target:
    """One model under attack.

    Attributes:
        session: What answers.
        twin: The same model, differentiable.
    """

    session: onnxruntime.InferenceSession
    twin: Twin


@dataclass(frozen=True)
class _Battle:
    """What all attacks of one pool share; `images` `(M, C, H, W)` in raw pixel units, `labels` `(M,)`."""

    images: Images
    labels: Labels
    classes: int
    pixel_max: int
    options: Attack
    seed: int
    batch_size: int

    @property
    def shares(self) -> Images:
        """The images as shares of the pixel range, in [0, 1]: the units attacks work in."""
        return (self.images / np.float32(self.pixel_max)).astype(np.float32)

    @property
    def one_hot(self) -> Images:
        return np.eye(self.classes, dtype=np.float32)[self.labels]

    def to_pixels(self, shares: npt.NDArray[Any]) -> Images:
        """Turn shares of the pixel range into raw pixels within budget and range."""
        return project(
            np.asarray(shares, np.float64) * self.pixel_max, self.images, self.options.epsilon, self.pixel_max
        )


def project(attacked: npt.NDArray[Any], images: Images, epsilon: float, pixel_max: int) -> Images:
    """Return the nearest float32 images within the budget and the pixel range.

    Args:
        attacked: `(M, C, H, W)` in raw pixel units.
        images: `(M, C, H, W)` the originals, in [0, pixel_max].
        epsilon: Largest change of a pixel, as a share of the pixel range.
        pixel_max: The value of a saturated pixel.

    Raises:
        ProbeError: if an attacked pixel is not finite.
    """
    if not np.isfinite(attacked).all():
        raise ProbeError("expected finite attacked images, got NaN or infinity")
    exact = images.astype(np.float64)
    reach = epsilon * pixel_max * (1 - SLACK)
    low, high = np.maximum(exact - reach, 0), np.minimum(exact + reach, pixel_max)
    low32, high32 = low.astype(np.float32), high.astype(np.float32)
    # float32 rounds to nearest, which may be outside; step one number inwards there.
    low32 = np.where(low32 < low, np.nextafter(low32, np.float32(np.inf)), low32)
    high32 = np.where(high32 > high, np.nextafter(high32, np.float32(-np.inf)), high32)
    return np.clip(np.asarray(attacked, np.float32), low32, high32)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed what ART draws from (numpy's and torch's global states), on one torch thread, and put all back."""
    import torch

    state = np.random.get_state()  # noqa: NPY002 - the global state is the one ART draws from
    torch_state, threads = torch.get_rng_state(), torch.get_num_threads()
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
        torch.set_rng_state(torch_state)
        torch.set_num_threads(threads)


def _derive(seed: int, *branch: int) -> int:
    return int(np.random.SeedSequence([seed, *branch]).generate_state(1)[0])


def _margins(scores: npt.NDArray[np.float32], labels: Labels) -> npt.NDArray[np.float32]:
    """Return score of the label minus the best other score, `(M,)`; below 0 the model is wrong.

    Where scores are not finite the model does not answer, the most wrong it can be.
    """
    finite = np.asarray(np.isfinite(scores).all(axis=1))
    known = np.where(finite[:, None], scores, np.float32(0))
    rows = np.arange(len(labels))
    right = known[rows, labels]
    known[rows, labels] = -np.inf
    return np.where(finite, right - known.max(axis=1), MOST_WRONG)


def _losses() -> tuple[torch.nn.Module, torch.nn.Module]:
    """Return the losses that restarts alternate between, cross-entropy and margin.

    Cross-entropy's gradient vanishes where a model is over-confident, which would make it look robust; the
    margin's does not (Carlini and Wagner 2017, https://arxiv.org/abs/1608.04644).
    """
    import torch

    class Margin(torch.nn.Module):
        def forward(self, scores: torch.Tensor, one_hot: torch.Tensor) -> torch.Tensor:
            right = (scores * one_hot).sum(dim=1)
            return ((scores - 1e9 * one_hot).amax(dim=1) - right).sum()

    return torch.nn.CrossEntropyLoss(), Margin()


def _differentiable(battle: _Battle, target: Target, loss: torch.nn.Module) -> Any:
    """Return ART's view of a model's twin: shares of the pixel range in, scores out."""
    import torch

    pixel_max, twin = battle.pixel_max, target.twin

    class InShares(torch.nn.Module):
        def forward(self, shares: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = twin(shares * pixel_max)
            return scores

    return import_art().PyTorchClassifier(
        model=InShares(),
        loss=loss,
        input_shape=battle.images.shape[1:],
        nb_classes=battle.classes,
        clip_values=(0.0, 1.0),
        preprocessing=None,
        device_type="cpu",
    )


def _descend(battle: _Battle, target: Target, restart: int) -> Images:
    """Return the end of one descent from a random start within the budget."""
    options, losses = battle.options, _losses()
    attack = import_art().ProjectedGradientDescent(
        _differentiable(battle, target, losses[restart % len(losses)]),
        norm=np.inf,
        eps=options.epsilon,
        eps_step=min(options.epsilon, 2.5 * options.epsilon / options.pgd_steps),
        max_iter=options.pgd_steps,
        num_random_init=1,
        batch_size=battle.batch_size,
        verbose=False,
    )
    with _seeded(_derive(battle.seed, 2, restart)):
        return battle.to_pixels(attack.generate(battle.shares, battle.one_hot))


def _craft_pgd(battle: _Battle, target: Target) -> Images:
    """Return each example's first end that the ONNX file gets wrong, or its last end if there is none."""
    found = battle.images.copy()
    alive = np.arange(len(battle.labels))
    for restart in range(battle.options.pgd_restarts):
        if len(alive) == 0:
            break
        rest = dataclasses.replace(battle, images=battle.images[alive], labels=battle.labels[alive])
        found[alive] = _descend(rest, target, restart)
        decided = decide(predict(target.session, found[alive], battle.batch_size))
        alive = alive[decided == rest.labels]
    return found


class _Answers:
    """A model's answers, remembered by image: Square asks for most of them three times over."""

    def __init__(self, battle: _Battle, target: Target) -> None:
        self._battle, self._target = battle, target
        self._known: dict[bytes, npt.NDArray[np.float32]] = {}

    def __call__(self, shares: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        if len(self._known) > 8 * len(self._battle.labels):
            self._known.clear()
        shares = np.ascontiguousarray(shares, np.float32)
        keys = [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in shares]
        new = [row for row, key in enumerate(keys) if key not in self._known]
        if new:
            pixels = shares[new] * np.float32(self._battle.pixel_max)
            scores = predict(self._target.session, pixels, self._battle.batch_size)
            self._known.update((keys[row], score) for row, score in zip(new, scores, strict=True))
        return np.stack([self._known[key] for key in keys])


def _craft_square(battle: _Battle, target: Target) -> Images:
    """Return what Square makes of the images, asking the ONNX file alone.

    ART draws a square's corner from `range(side of the image - side of the square)`, so that no square ever
    touches the last row or column; one more of each, which the model does not see, brings them within reach.
    Its own loss compares with the second best score, the label's own once the model is wrong or in doubt.
    """
    art = import_art()
    _, channels, height, width = battle.images.shape
    remembered = _Answers(battle, target)

    def answer(shares: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        return remembered(shares[:, :, :height, :width])

    classifier = art.BlackBoxClassifierNeuralNetwork(
        answer,
        (channels, height + 1, width + 1),
        battle.classes,
        channels_first=True,
        clip_values=(0.0, 1.0),
    )
    attack = art.SquareAttack(
        classifier,
        norm=np.inf,
        loss=lambda shares, one_hot: _margins(answer(shares), one_hot.argmax(axis=1)),
        eps=battle.options.epsilon,
        max_iter=battle.options.square_queries,
        # Share of the pixels in the first squares, which must fit into the image.
        p_init=min(0.8, min(height, width) ** 2 / ((height + 1) * (width + 1))),
        nb_restarts=1,
        batch_size=len(battle.labels),
        verbose=False,
    )
    larger = np.pad(battle.shares, ((0, 0), (0, 0), (0, 1), (0, 1)))
    with _seeded(_derive(battle.seed, 3)):
        attacked = attack.generate(larger, battle.one_hot)
    return battle.to_pixels(attacked[:, :, :height, :width])


def _craft_noise(battle: _Battle) -> Images:
    random = np.random.default_rng([battle.seed, 1])
    epsilon = battle.options.epsilon
    return battle.to_pixels(battle.shares + random.uniform(-epsilon, epsilon, battle.images.shape))


def _agreement(battle: _Battle, target: Target) -> float:
    """Share of the unattacked images on which twin and ONNX Runtime decide alike."""
    import torch

    with _seeded(battle.seed), torch.no_grad():
        parts = [
            target.twin(part).numpy()
            for part in torch.split(torch.from_numpy(battle.images), battle.batch_size)
        ]
    twins = decide(np.concatenate(parts))
    answers = decide(predict(target.session, battle.images, battle.batch_size))
    return float(np.mean((twins == answers) & (twins >= 0)))


def _draw(split: Split, options: Attack, seed: int) -> npt.NDArray[np.intp]:
    count = min(options.examples, len(split.ids))
    return np.sort(np.random.default_rng([seed, 0]).choice(len(split.ids), count, replace=False))


def run_attacks(
    baseline: Target,
    candidate: Target,
    split: Split,
    *,
    classes: int,
    pixel_max: int,
    options: Attack,
    seed: int,
    batch_size: int,
) -> Attacks:
    """Attack both models and show every attack's examples to both.

    Args:
        baseline: The baseline.
        candidate: The candidate.
        split: The test split; `options.examples` of it are drawn with the seed, or all if there are fewer.
        classes: Number of classes.
        pixel_max: The value of a saturated pixel.
        options: Budget and effort, the same against both models.
        seed: Same seed, same bytes.
        batch_size: Images a call.

    Returns:
        Outcomes on `(A, M)` attacks and examples; taking the worst case is left to the checks.

    Raises:
        ProbeError: if an attack cannot be run on a model.
    """
    rows = _draw(split, options, seed)
    battle = _Battle(split.images[rows], split.labels[rows], classes, pixel_max, options, seed, batch_size)
    crafts: Mapping[str, Callable[[], Images]] = {
        "clean": lambda: battle.images,
        "noise": lambda: _craft_noise(battle),
        "pgd-on-baseline": lambda: _craft_pgd(battle, baseline),
        "pgd-on-candidate": lambda: _craft_pgd(battle, candidate),
        "square-on-baseline": lambda: _craft_square(battle, baseline),
        "square-on-candidate": lambda: _craft_square(battle, candidate),
    }
    correct: dict[str, list[npt.NDArray[np.bool_]]] = {"baseline": [], "candidate": []}
    changes, within = [], []
    for name in track(ATTACKS, "attacking both models"):
        attacked = _guarded(name, crafts[name])
        for model, target in (("baseline", baseline), ("candidate", candidate)):
            correct[model].append(decide(predict(target.session, attacked, batch_size)) == battle.labels)
        change = np.abs(attacked.astype(np.float64) - battle.images) / pixel_max
        changes.append(change.max(axis=(1, 2, 3)))
        within.append(((attacked >= 0) & (attacked <= pixel_max)).all(axis=(1, 2, 3)))
    return Attacks(
        ids=split.ids[rows],
        names=ATTACKS,
        baseline_correct=np.stack(correct["baseline"]),
        candidate_correct=np.stack(correct["candidate"]),
        perturbation=np.stack(changes),
        in_range=np.stack(within),
        epsilon=options.epsilon,
        twin_agreement=(_agreement(battle, baseline), _agreement(battle, candidate)),
    )


def measure_robustness(
    target: Target, split: Split, *, classes: int, pixel_max: int, options: Attack, seed: int, batch_size: int
) -> float:
    """Return the share that a model still gets right under projected gradient descent on itself alone.

    For a first look at many models; what is judged is the whole pool, see `run_attacks`.

    Args:
        target: The model.
        split: Whose `options.examples` are attacked, drawn with the seed.
        classes: Number of classes.
        pixel_max: The value of a saturated pixel.
        options: Budget and effort.
        seed: Same seed, same share.
        batch_size: Images a call.

    Raises:
        ProbeError: if the attack cannot be run on the model.
    """
    rows = _draw(split, options, seed)
    battle = _Battle(split.images[rows], split.labels[rows], classes, pixel_max, options, seed, batch_size)
    attacked = _guarded("pgd", lambda: _craft_pgd(battle, target))
    return float(np.mean(decide(predict(target.session, attacked, batch_size)) == battle.labels))


def _guarded(name: str, craft: Callable[[], Images]) -> Images:
    try:
        return craft()
    except ProbeError:
        raise
    except Exception as error:  # an attack that breaks must not pass for one that found nothing
        first = (str(error).splitlines() or [""])[0]
        raise ProbeError(f"expected attack {name} to run, got {type(error).__name__}: {first}") from error
