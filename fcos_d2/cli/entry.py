"""Where the console script `fcos` begins; the wheel holds this file as the top-level module `fcos_d2_console`.

`import fcos_d2` registers everything with Detectron2, which imports PyTorch. The script has to answer `--help` at once,
and to say in one sentence that Detectron2 is missing, so it cannot begin inside the package: importing any module of a
package imports the package first. It begins here, and says so in `started`, which `fcos_d2/__init__.py` reads.

`main` sets it, the import does not: the processes that a command spawns import this module again, by way of the script
that they were spawned from, but do not call `main`, and get all parts.
"""

from __future__ import annotations

started = False


def main() -> None:
    """Run the command line; see `fcos_d2.cli.main`."""
    global started
    started = True
    from fcos_d2.cli import main as command

    command()
