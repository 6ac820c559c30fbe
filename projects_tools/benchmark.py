"""Measure this package beside other FCOS implementations: `fcos bench` from a checkout.

python projects_tools/benchmark.py --suite loss --threads 2
"""

from __future__ import annotations

import sys

from fcos_d2.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["bench"]
    main()
