"""Detectors in the layout of the Hugging Face Hub: a folder with model.safetensors, here or at hf://owner/name."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import FcosError
from ..libraries import is_installed
from ..paths import HUB, HUB_FILE
from .obtain import is_offline

__all__ = ["located"]

_ID = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


def located(name: str) -> str:
    """The file of a detector that a name means.

    Args:
        name: a folder with model.safetensors, hf://owner/name, or hf://owner/name@revision; other names stay.
    Raises:
        FcosError: there is no such repository, or none can be reached; one sentence.
    """
    if name.startswith(HUB):
        return _fetched(name)
    file = Path(name).expanduser() / HUB_FILE
    return str(file) if file.is_file() else name


def _fetched(name: str) -> str:
    """The file in the cache of huggingface_hub, fetched where it is not there yet."""
    found = _ID.fullmatch(name)
    if found is None:
        raise FcosError(f"{name} is no name at Hugging Face: hf://owner/name, or hf://owner/name@revision.")
    if not is_installed("huggingface_hub"):
        raise FcosError(f"{name} needs the package huggingface_hub: pip install 'fcos_d2[hub]'")
    from huggingface_hub import errors, hf_hub_download

    repository, revision = found.groups()
    offline = is_offline("https://huggingface.co")
    try:
        return hf_hub_download(
            repository, HUB_FILE, revision=revision, local_files_only=offline, library_name="fcos_d2"
        )
    except errors.LocalEntryNotFoundError as error:
        why = "--offline forbids to fetch it" if offline else "the server cannot be reached"
        raise FcosError(f"{name} is not in the cache of huggingface_hub, and {why}.") from error
    except errors.RevisionNotFoundError as error:
        raise FcosError(f"{repository} has no revision {revision} at Hugging Face.") from error
    except errors.RepositoryNotFoundError as error:
        raise FcosError(f"There is no {repository} at Hugging Face, or only for others: `hf auth login`.") from error
    except errors.EntryNotFoundError as error:
        raise FcosError(f"{repository} at Hugging Face has no {HUB_FILE}, so it is no detector of fcos_d2.") from error
    except Exception as error:  # of the network
        first = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise FcosError(f"{name} cannot be fetched: {first}.") from error
