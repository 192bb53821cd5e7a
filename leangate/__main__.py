# SPDX-License-Identifier: Apache-2.0
"""`python -m leangate`."""

import sys

from leangate.cli import main

sys.exit(main())
