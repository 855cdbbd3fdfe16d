"""dpkg's status file and CUDA's ``version.json``: what JetPack's packages are installed for the whole system."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from edgekit.runtime.jetson.sources import Sources

__all__ = ["parse_packages", "parse_toolkit", "read_packages", "read_toolkit"]

_OF_INTEREST = re.compile(r"^(nvidia-jetpack|libnvinfer\d+|python3-libnvinfer)$")
_FIELD = re.compile(r"^(Package|Status|Version): (.*)$", re.M)


def parse_packages(text: str) -> Mapping[str, str]:
    """Returns name and version of JetPack's and TensorRT's packages that are installed.

    Source: dpkg(1): ``/var/lib/dpkg/status`` has a paragraph for each package, also for those that were removed.
    """
    found = {}
    for paragraph in text.split("\n\n"):
        fields = dict(_FIELD.findall(paragraph))
        name, version = fields.get("Package", ""), fields.get("Version")
        installed = fields.get("Status", "").endswith(" installed")
        if installed and version is not None and _OF_INTEREST.match(name) is not None:
            found[name] = version
    return found


def parse_toolkit(text: str) -> str | None:
    """Returns the version of CUDA's toolkit that ``version.json`` names, or None.

    >>> parse_toolkit('{"cuda": {"name": "CUDA SDK", "version": "12.6.20241114"}}')
    '12.6.20241114'
    """
    try:
        version = json.loads(text)["cuda"]["version"]
    except (ValueError, KeyError, TypeError):
        return None
    return version if isinstance(version, str) else None


def read_packages(sources: Sources) -> Mapping[str, str]:
    """Returns the machine's packages; none where it has no dpkg."""
    text = sources.text("var/lib/dpkg/status")
    return {} if text is None else parse_packages(text)


def read_toolkit(sources: Sources) -> str | None:
    """Returns the version of the machine's CUDA toolkit, or None."""
    text = sources.text("usr/local/cuda/version.json")
    return None if text is None else parse_toolkit(text)
