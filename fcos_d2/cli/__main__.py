"""`python -m fcos_d2.cli` is the console command."""

from . import main

if __name__ == "__main__":
    main()
