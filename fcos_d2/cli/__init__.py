"""The console command `fcos`. Commands import what they need when they run: `fcos --help` does not wait for PyTorch."""

from __future__ import annotations

import click

import fcos_d2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(fcos_d2.__version__, prog_name="fcos")
def main() -> None:
    """FCOS: fully convolutional one-stage object detection."""
