"""Published files on this machine: fetched once, checked, kept in the cache folder; PyTorch is not needed.

What may be changed here: how a file comes from its address, where it lies, and what is said on the way. Which files
there are is data of the zoo; what is in them is for the room of weights.
"""

from .kept import folder_of, found_elsewhere, lock, place_of
from .obtain import file_of, is_offline, obtain, require, row_of
from .repositories import located

__all__ = [
    "file_of", "folder_of", "found_elsewhere", "is_offline", "located", "lock", "obtain", "place_of", "require",
    "row_of",
]  # fmt: skip
