# SPDX-License-Identifier: Apache-2.0
"""Sources of examples: a user's function, or a Parquet file with encoded images."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from checks.errors import DataError
from pipeline.params import Prepare
from pipeline.user_code import call_function, load_function

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["SourceExamples", "read_source"]

Pixels = npt.NDArray[np.uint8]

IMAGE_COLUMNS = ("id", "image", "label")
OPTIONAL_COLUMNS = ("unit", "split", "source", "license", "consent")


@dataclass(frozen=True)
class SourceExamples:
    """What a source gives.

    Attributes:
        ids: `(N,)` unique names.
        pixels: `(N, C, H, W)` uint8, from 0 to `pixel_max`.
        pixel_max: The value of a saturated pixel, in [1, 255].
        labels: `(N,)` class names.
        source: Where the examples come from, one name or `(N,)`.
        license: SPDX id, one or `(N,)`.
        consent: Basis on which persons agreed, one or `(N,)`.
        units: `(N,)` the subject or clip each example belongs to; None: each example is its own.
        splits: `(N,)` names of splits; None: `prepare` splits.
        columns: Slice columns, name to `(N,)` levels.
    """

    ids: Sequence[str]
    pixels: Pixels
    pixel_max: int
    labels: Sequence[str]
    source: str | Sequence[str]
    license: str | Sequence[str]
    consent: str | Sequence[str]
    units: Sequence[str] | None = None
    splits: Sequence[str] | None = None
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)


def _check(examples: SourceExamples, where: str) -> SourceExamples:
    pixels = examples.pixels
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 4:
        came = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise DataError(f"expected pixels (N, C, H, W) of uint8, got {came}", where=where)
    count = len(pixels)
    if count == 0 or 0 in pixels.shape:
        raise DataError(f"expected at least one image, got shape {pixels.shape}", where=where)
    if not 1 <= examples.pixel_max <= 255 or int(pixels.max()) > examples.pixel_max:
        raise DataError(
            f"expected pixels within [0, pixel_max] and pixel_max within [1, 255], "
            f"got a pixel of {int(pixels.max())} and pixel_max {examples.pixel_max}",
            where=where,
        )
    lengths: dict[str, Any] = {"ids": examples.ids, "labels": examples.labels, **examples.columns}
    for name in ("source", "license", "consent", "units", "splits"):
        value = getattr(examples, name)
        if value is not None and not isinstance(value, str):
            lengths[name] = value
    for name, values in lengths.items():
        if len(values) != count:
            raise DataError(f"expected {count} {name}, one an image, got {len(values)}", where=where)
    return examples


def _decode(data: Any, row: str, max_pixels: int, where: str) -> Pixels:
    """Decode one image to (C, H, W), its size bounded before any pixel is decoded."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(data, dict):  # the convention of Hugging Face datasets: {"bytes": ..., "path": ...}
        data = data.get("bytes")
    if not isinstance(data, bytes):
        raise DataError(f"row {row}: expected the bytes of an image, got {type(data).__name__}", where=where)
    try:
        with Image.open(io.BytesIO(data), formats=["PNG", "JPEG", "BMP", "WEBP"]) as image:
            if image.width * image.height > max_pixels:
                raise DataError(
                    f"row {row}: expected at most {max_pixels} pixels, got {image.width}x{image.height}",
                    where=where,
                    hint="raise prepare.max_pixels if this is right",
                )
            if image.mode not in ("L", "RGB"):
                raise DataError(
                    f"row {row}: expected a grey or RGB image, got mode {image.mode}", where=where
                )
            array = np.asarray(image, dtype=np.uint8)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        # Pillow names the object in memory where it knows no format.
        came = "bytes of no known format" if isinstance(error, UnidentifiedImageError) else str(error)
        raise DataError(
            f"row {row}: expected a whole PNG, JPEG, BMP or WebP image, got {came}",
            where=where,
            hint="replace the image or remove the row",
        ) from error
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _parquet_table(path: Path, max_examples: int, where: str) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            rows = file.metadata.num_rows
            if rows > max_examples:
                raise DataError(
                    f"expected at most {max_examples} rows, got {rows}",
                    where=where,
                    hint="raise prepare.max_examples if this is right",
                )
            table = file.read()
    except (OSError, pa.ArrowInvalid, pa.ArrowException) as error:
        raise DataError(
            f"expected a Parquet file, got {' '.join(str(error).split())}", where=where
        ) from error
    repeated = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if repeated:
        raise DataError(f"expected each column once, got {repeated} more than once", where=where)
    missing = [name for name in IMAGE_COLUMNS if name not in table.column_names]
    if missing:
        raise DataError(f"expected columns {list(IMAGE_COLUMNS)}, got none named {missing}", where=where)
    for name in table.column_names:
        if pa.types.is_floating(table.schema.field(name).type):
            raise DataError(f"expected text or whole numbers in column {name!r}, got floats", where=where)
        if table.column(name).null_count:
            raise DataError(
                f"expected no nulls in column {name!r}, got {table.column(name).null_count}", where=where
            )
    return table


def _read_parquet(path: Path, params: Prepare, where: str) -> SourceExamples:
    table = _parquet_table(path, params.max_examples, where)
    text = {
        name: [str(value) for value in table.column(name).to_pylist()]
        for name in table.column_names
        if name != "image"
    }
    images: list[Pixels] = []
    for row, data in zip(text["id"], table.column("image").to_pylist(), strict=True):
        image = _decode(data, row, params.max_pixels, where)
        if images and image.shape != images[0].shape:
            raise DataError(
                f"row {row}: expected an image of shape {images[0].shape} like the first, got {image.shape}",
                where=where,
                hint="resize the images beforehand; the model has one input shape",
            )
        images.append(image)
    if not images:
        raise DataError("expected at least one row, got none", where=where)
    return SourceExamples(
        ids=text["id"],
        pixels=np.stack(images),
        pixel_max=255,
        labels=text["label"],
        source=text.get("source", path.name),
        license=text.get("license", "unknown"),
        consent=text.get("consent", "unknown"),
        units=text.get("unit"),
        splits=text.get("split"),
        columns={name: text[name] for name in text if name not in (*IMAGE_COLUMNS, *OPTIONAL_COLUMNS)},
    )


def read_source(params: Prepare, root: Path) -> SourceExamples:
    """Read all examples of `params.source`.

    Raises:
        DataError: naming the row, if the source is missing or gives anything unusable.
    """
    where = f"params.yaml prepare.source ({params.source})"
    if params.source.endswith(".parquet"):
        return _check(_read_parquet(root / params.source, params, where), where)
    function = load_function(params.source, root, where=where, error_type=DataError)
    examples = call_function(function, {}, where=where, error_type=DataError)
    if not isinstance(examples, SourceExamples):
        raise DataError(f"expected a SourceExamples, got {type(examples).__name__}", where=where)
    if len(examples.pixels) > params.max_examples:
        raise DataError(
            f"expected at most {params.max_examples} examples, got {len(examples.pixels)}", where=where
        )
    return _check(examples, where)
