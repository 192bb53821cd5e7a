# SPDX-License-Identifier: Apache-2.0
"""The pipeline produces: data, models, evidence, bundle, registration.

One thin module a stage, named like the stage in `dvc.yaml`, each with one function `run`; stages meet
only through the files named in `layout`:

    prepare  validate  train  prune  quantize  shortlist  evaluate  time
    gate  select  enforce  bundle  register

Behind them:

    params      `params.yaml`, typed
    compress/   one frozen config and one function a method
    probes/     everything that executes a model for measurement
    data/       sources of images, manifest, slice formulas
    models/     factories, training, ONNX export, counting
    card/       model card and the table of candidates
    registry    the only module that talks to MLflow
"""

import os

# ONNX Runtime starts an uploader when it is imported, and heeds nothing but this, if set before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
