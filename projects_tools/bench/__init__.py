"""This package beside other FCOS implementations: `python -m projects_tools.bench` in a checkout.

Nothing of it is part of the product. How fast a detector of your own is, `fcos bench` says.
"""

import fcos_d2

fcos_d2.register()  # before any module here imports a part of Detectron2 that release 0.6 needs mended
