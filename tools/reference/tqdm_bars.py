"""Progress bars as tqdm writes them where it finds no terminal: tests/golden/tqdm.json.

    python tools/reference/tqdm_bars.py
"""

import json
import pathlib

from tqdm import tqdm

CASES = [(0, 4, 0.0, "", 0), (1, 4, 1.0, "", 0), (2, 4, 1.25, "", 0), (3, 4, 30.0, "", 0), (4, 4, 0.5, "", 0),
         (1, 1000, 1.21, "lr: 4.0e-04 loss: 3.1e-01", 0), (333, 1000, 4003.7, "loss: 1", 0),
         (1000, 1000, 1211.0, "x", 0), (7, 28, 3.999, "", 0), (13, 28, 61.2, "", 0), (999, 1000, 0.01, "", 0),
         (1, 3, 7200.0, "", 0), (27, 28, 100.0, "", 0), (400, 1000, 0.0, "", 400), (420, 1000, 31.5, "", 400)]

rows = [{"done": n, "total": total, "elapsed": elapsed, "postfix": postfix, "initial": initial,
         "line": tqdm.format_meter(n, total, elapsed, postfix=postfix or None, initial=initial)}
        for n, total, elapsed, postfix, initial in CASES]
path = pathlib.Path(__file__).parents[2] / "tests/golden/tqdm.json"
path.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n")
