"""What `fcos analyze` takes: seconds and the peak memory of its process, for a COCO file that is made.

python -m projects_tools.analyze_cost --images 5000 --boxes 7.2
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .many_labels import write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--boxes", type=float, default=7.2, help="in each picture, on average")
    parser.add_argument("options", nargs="*", help="of fcos analyze, after --")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), arguments.images, arguments.boxes)
        command = [sys.executable, "-m", "fcos_d2.cli", "analyze", name, "--json", *arguments.options]
        started = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        seconds = time.perf_counter() - started
    found = json.loads(done.stdout)["parts"]["train"]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy, peak = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
    told = f"{found['images']} pictures, {found['boxes']} boxes"
    print(f"{told}: {seconds:.1f} s, {busy:.1f} s of CPU, {peak:.0f} MiB at most")


if __name__ == "__main__":
    main()
