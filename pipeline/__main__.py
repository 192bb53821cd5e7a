# SPDX-License-Identifier: Apache-2.0
"""`python -m pipeline STAGE`: what `dvc.yaml` calls."""

import sys

from pipeline.stages import main

sys.exit(main())
