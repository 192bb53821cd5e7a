# SPDX-License-Identifier: Apache-2.0
"""`params.yaml`, typed: one section a stage, every key known, every range stated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from checks.errors import InputError, ParamsError
from pipeline.compress.configs import PruneRecipe
from pipeline.compress.precision_configs import QuantizeRecipe
from pipeline.search.configs import Search
from pipeline.section_errors import did_you_mean, explain
from pipeline.sections import Name, Section, Share, Training

__all__ = [
    "Attack",
    "Evaluate",
    "Model",
    "Params",
    "Prepare",
    "Prune",
    "Quantize",
    "Register",
    "Select",
    "Shortlist",
    "Time",
    "Train",
    "Validate",
    "load_params",
    "load_yaml",
]

MAX_YAML_BYTES = 1024 * 1024
_MAX_DEPTH = 20
_MOST_VALUES = 500_000


class Splits(Section):
    """Share of the examples in each split; together 1."""

    train: Share
    calibration: Share
    validation: Share
    test: Share

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = self.train + self.calibration + self.validation + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"expected shares that sum to 1, got {total:g}")
        return self


class Prepare(Section):
    """prepare: where examples come from and how they are split."""

    source: str = Field(min_length=1, description="`file.py:function`, or a `.parquet` file with images")
    input: str = Field(
        min_length=1, description="file or folder that DVC watches: raw data, or the source's code"
    )
    classes: tuple[str, ...] | None = Field(
        description="in the order of the model's outputs; null: sorted labels"
    )
    splits: Splits | None = Field(description="null keeps the splits that the source names")
    slices: tuple[Name, ...] = Field(description="slice columns: computed by name, or given by the source")
    pseudonyms: bool = Field(
        default=False, description="ids and units as salted digests; names stay in `restricted/`"
    )
    sensitive: tuple[Name, ...] = Field(
        default=(), description="of the slices; what they say of single examples never leaves with a bundle"
    )
    max_examples: int = Field(default=1_000_000, ge=1)
    max_pixels: int = Field(default=4096 * 4096, ge=1, description="of one image, checked before decoding")

    @model_validator(mode="after")
    def _input_holds_source(self) -> Self:
        file = Path(self.source.rsplit(":", 1)[0] if ".py:" in self.source else self.source)
        if not file.is_relative_to(self.input):
            raise ValueError(f"expected input to be or to hold the source's file {file}, got {self.input}")
        return self

    @model_validator(mode="after")
    def _sensitive_are_slices(self) -> Self:
        for index, name in enumerate(self.sensitive):
            known = [slice_ for slice_ in self.slices if slice_ not in self.sensitive[:index]]
            if name not in known:
                raise PydanticCustomError(
                    "no_slice",
                    "expected names in prepare.slices ({known}), each once, got {name}{near}",
                    {
                        "key": f"prepare.sensitive[{index}]",
                        "known": ", ".join(self.slices) or "none",
                        "name": repr(name),
                        "near": did_you_mean(name, known),
                    },
                )
        return self


class Validate(Section):
    """validate: what the data must satisfy."""

    allowed_licenses: tuple[str, ...] = Field(min_length=1, description="SPDX ids")
    allowed_consent: tuple[str, ...] = Field(min_length=1)
    min_class_share: Share = Field(description="of each class in each split")
    min_split_rows: int = Field(ge=1)


class Model(Section):
    """The baseline: what builds it and what it expects."""

    factory: str = Field(pattern=r"^[^:]+\.py:[A-Za-z_]\w*$", description="`file.py:function`")
    arguments: dict[str, int | float | str | bool] = Field(default_factory=dict)
    code: str = Field(min_length=1, description="file or folder that DVC watches; holds the factory")
    weights: str | None = Field(description="safetensors to import instead of training, or null")
    mean: tuple[float, ...] = Field(
        min_length=1, max_length=64, description="a channel, of pixels scaled to [0, 1]"
    )
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1, max_length=64)
    output: Literal["logits", "probabilities"] = Field(
        default="logits", description="what the network answers; probabilities end with a softmax"
    )

    @model_validator(mode="after")
    def _code_holds_factory(self) -> Self:
        file = Path(self.factory.rsplit(":", 1)[0])
        if not file.is_relative_to(self.code):
            raise ValueError(f"expected code to be or to hold the factory's file {file}, got {self.code}")
        if self.weights is not None and not Path(self.weights).is_relative_to(self.code):
            raise ValueError(
                f"expected code to be the folder that holds weights {self.weights}, got {self.code}"
            )
        return self

    @model_validator(mode="after")
    def _same_channels(self) -> Self:
        if len(self.mean) != len(self.std):
            raise ValueError(f"expected as many std as mean, got {len(self.std)} and {len(self.mean)}")
        return self


class Train(Training):
    """train: the baseline."""


def _expect_recipes(key: str, names: tuple[str, ...], recipes: Mapping[str, object]) -> None:
    missing = sorted(set(names) - set(recipes))
    if missing:
        raise ValueError(f"expected a recipe for each of {key}, got none for {missing}")
    if len(set(names)) != len(names):
        raise ValueError(f"expected distinct {key}, got {list(names)}")


class Prune(Section):
    """prune: the shrink variants by name."""

    variants: tuple[Name, ...] = Field(min_length=1)
    recipes: dict[Name, PruneRecipe] = Field(description="passes in order; none leaves the baseline")

    @model_validator(mode="after")
    def _every_variant_has_a_recipe(self) -> Self:
        _expect_recipes("variants", self.variants, self.recipes)
        return self


class Quantize(Section):
    """quantize: the precisions by name."""

    precisions: tuple[Name, ...] = Field(min_length=1)
    recipes: dict[Name, QuantizeRecipe]

    @model_validator(mode="after")
    def _every_precision_has_a_recipe(self) -> Self:
        _expect_recipes("precisions", self.precisions, self.recipes)
        return self


class Shortlist(Section):
    """shortlist: how finalists are chosen, on the validation split alone."""

    slots: tuple[Name, ...] = Field(
        min_length=1, max_length=8, description="one finalist each; alpha is shared"
    )
    max_accuracy_drop: float = Field(gt=0, lt=1, description="worse candidates are no finalists")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.slots)) != len(self.slots):
            raise ValueError(f"expected distinct slots, got {list(self.slots)}")
        return self


class Attack(Section):
    """The adversarial pool, the same budget for both models."""

    epsilon: float = Field(gt=0, le=1, description="L-infinity budget, share of the pixel range")
    examples: int = Field(ge=1, description="of the test split, drawn with the seed")
    pgd_steps: int = Field(ge=1, le=10_000)
    pgd_restarts: int = Field(ge=1, le=1_000)
    square_queries: int = Field(ge=1, le=1_000_000, description="an example")


class Evaluate(Section):
    """evaluate: the probes on the test split."""

    batch_size: int = Field(ge=1, le=65_536)
    contract_examples: int = Field(
        default=128, ge=1, le=65_536, description="of the test split, on which a file must answer alike"
    )
    attack: Attack


class Time(Section):
    """time: paired latency over fresh session pairs."""

    batch_sizes: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(min_length=1)
    sessions: int = Field(ge=1, le=1_000)
    rounds: int = Field(ge=1, le=10_000)
    calls: int = Field(ge=1, le=10_000, description="a round's time is the median of so many calls")
    warmup: int = Field(ge=0, le=10_000, description="calls of each file per session, thrown away")
    threads: int = Field(default=1, ge=1, le=256)


class Select(Section):
    """select: what is preferred among finalists that passed; no test metric may be named."""

    preference: tuple[Literal["bytes", "macs", "latency"], ...] = Field(min_length=1)


class Register(Section):
    """register: name in the registry."""

    model: str = Field(pattern=r"^[^/:]{1,200}$")
    alias: Name
    experiment: str = Field(min_length=1, max_length=200)


class Params(Section):
    """All of `params.yaml`."""

    seed: int = Field(ge=0, le=2**31 - 1)
    model: Model
    prepare: Prepare
    validate_: Validate = Field(alias="validate")
    train: Train
    prune: Prune
    quantize: Quantize
    shortlist: Shortlist
    evaluate: Evaluate
    time: Time
    select: Select
    register_: Register = Field(alias="register")
    search: Search = Search()

    @model_validator(mode="after")
    def _baseline_is_trained_or_imported(self) -> Self:
        if self.train.epochs == 0 and self.model.weights is None:
            raise PydanticCustomError(
                "untrained",
                "expected at least 1 where model.weights names none to import, got 0",
                {"key": "train.epochs"},
            )
        return self

    @model_validator(mode="after")
    def _search_names_precisions(self) -> Self:
        known = sorted(self.quantize.recipes)
        for key in ("precisions", "baseline_precisions"):
            for name in getattr(self.search.space, key) or ():
                if name not in known:
                    raise PydanticCustomError(
                        "unknown_recipe",
                        "expected names in quantize.recipes ({known}), got {name}{near}",
                        {
                            "key": f"search.space.{key}",
                            "known": ", ".join(known),
                            "name": repr(name),
                            "near": did_you_mean(name, known),
                        },
                    )
        return self


def _expect_bounded(value: Any) -> None:
    """Refuse aliases of aliases: a page of them stands for more values than any memory holds."""
    waiting, left = [value], _MOST_VALUES
    while waiting:
        entry = waiting.pop()
        inner = [*entry, *entry.values()] if isinstance(entry, dict) else entry
        if isinstance(inner, list | tuple | set):
            left -= len(inner)
            if left < 0:
                raise ValueError(f"more than {_MOST_VALUES} values, aliases written out")
            waiting += inner


def load_yaml(path: Path, error_type: type[InputError]) -> Any:
    """Read a YAML 1.2 file (as DVC does), refusing duplicate keys, tags and files over 1 MiB.

    Raises:
        error_type: if the file is missing, too large, or not such YAML.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        if path.exists() and not path.is_file():
            raise error_type("expected a file, got a folder or a device", where=str(path))
        size = path.stat().st_size
        if size > MAX_YAML_BYTES:
            raise error_type(f"expected at most {MAX_YAML_BYTES} bytes, got {size}", where=str(path))
        value = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        _expect_bounded(value)
        return value
    except OSError as error:
        raise error_type(
            f"expected a readable file, got {error.strerror}",
            where=str(path),
            hint="run the command in the folder that holds dvc.yaml",
        ) from error
    except (YAMLError, TypeError, ValueError, RecursionError) as error:
        # The rest of a message about a duplicate key says how to allow it.
        text = " ".join(str(error).split("To suppress")[0].split())
        raise error_type(f"expected YAML, got: {text}", where=str(path)) from error


def _tuples(value: Any, depth: int = 0) -> Any:
    """YAML has lists where sections hold immutable tuples; strict mode would refuse them."""
    if depth > _MAX_DEPTH:  # an alias within its own anchor never ends
        raise ParamsError(f"expected at most {_MAX_DEPTH} levels, got more", where="params.yaml")
    if isinstance(value, list):
        return tuple(_tuples(entry, depth + 1) for entry in value)
    if isinstance(value, dict):
        return {key: _tuples(entry, depth + 1) for key, entry in value.items()}
    return value


def load_params(path: Path) -> Params:
    """Read and check `params.yaml`.

    Raises:
        ParamsError: naming every wrong key, if the file is missing or anything in it is wrong.
    """
    value = load_yaml(path, ParamsError)
    if not isinstance(value, dict):
        raise ParamsError("expected sections (seed, model, prepare, ...)", where=str(path))
    if "bundle" in value:
        raise ParamsError(
            "expected what people say of the model in governance.yaml, got a section here",
            where=f"{path} bundle",
            hint="move title and license; purpose and limitations go below use, contact below provider",
        )
    try:
        return Params.model_validate(_tuples(value))
    except ValidationError as error:
        lines = explain(Params, error)
        raise ParamsError("; ".join(lines), where=str(path), hint="correct the named keys") from error
