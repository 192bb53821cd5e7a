# SPDX-License-Identifier: Apache-2.0
"""Draw the pictures of the docs from a run: `python docs/images/make.py`, where `artifacts/` lies.

`forest.svg` is the forest plot of the candidate that ships, `report.png` the head of the report. The latter
needs Chromium on the path, and is left as it is without.
"""

# ruff: noqa: INP001, S603, T201 - a script for people; what it starts is named here

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parents[1]))

WIDTH, HEIGHT = 1200, 2230
LARGEST = 200_000


def draw_forest_file(root: Path) -> None:
    """Write `forest.svg`."""
    from checks.canonical import read_json
    from pipeline.decision_file import read_decision
    from pipeline.layout import Layout
    from pipeline.report.picture import render_picture

    layout = Layout(root)
    chosen = read_json(layout.selection)["chosen"]
    if chosen is None:
        sys.exit("expected a run in which a candidate passed, got none")
    picture = render_picture(read_decision(layout.decision(chosen["slot"])))
    if picture is None:
        sys.exit("expected changes in accuracy in the decision, got none")
    (FOLDER / "forest.svg").write_text(picture, encoding="utf-8")


def photograph_report(root: Path) -> None:
    """Write `report.png`, in 256 colours."""
    from PIL import Image

    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        print("no Chromium on the path: report.png is left as it is")
        return
    page = (root / "artifacts" / "report" / "report.html").resolve().as_uri()
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "report.png"
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--user-data-dir={folder}/profile", f"--window-size={WIDTH},{HEIGHT}"]
        subprocess.run([*command, f"--screenshot={shot}", page], check=True, capture_output=True, timeout=120)
        target = FOLDER / "report.png"
        Image.open(shot).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(target, optimize=True)
    if target.stat().st_size > LARGEST:
        sys.exit(f"expected at most {LARGEST} bytes, got {target.stat().st_size} in {target}")


if __name__ == "__main__":
    draw_forest_file(Path())
    photograph_report(Path())
