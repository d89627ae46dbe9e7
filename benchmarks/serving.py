"""`python benchmarks/serving.py` runs `benchmarks/serving_speed.py`, by the name that goes with its package.

A script's own folder is where Python looks for modules first, and there this file would stand in the way of
the package of the same name, for this program and for all others in the folder. So it steps aside.
"""

import importlib
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_OTHERS = [place for place in sys.path if Path(place).resolve() != _HERE]

if __name__ == "__main__":
    sys.path[:] = _OTHERS
    sys.exit(importlib.import_module("benchmarks.serving_speed").main())
elif __name__ == "serving":  # another script of this folder has asked for the package
    sys.path[:] = _OTHERS
    del sys.modules[__name__]
    importlib.import_module(__name__)
