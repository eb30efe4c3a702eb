# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bundle's software bill of materials, in CycloneDX 1.6: its model, and the packages of its lock.

It is derived from the bundle's other files and from what is installed alone, with no time and no random number in it,
so that the same inputs give the same bundle. Packages have no hashes: each host gets the wheels of its own platform.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License, LicenseAcknowledgement
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from model_server.bundle.lock import required
from model_server.scoring.modules import FOLDER

_LONGEST_NAME = 100
"""Characters of a license's name; what is longer is its text."""


def sbom(
    name: str, version: str, files: Mapping[str, bytes], direct: Iterable[str], pins: Iterable[str]
) -> dict[str, Any]:
    """The document of ``sbom.cdx.json`` for the bundle ``name`` of ``version``.

    ``files`` are the model's, the bytes of each by its path; ``direct`` are the packages that they need, and ``pins``
    the names of these and of all that they require in turn.
    """
    packages = {pin: _package(pin, importlib.metadata.distribution(pin)) for pin in pins}
    bundle = Component(name=name, version=version, type=ComponentType.APPLICATION, bom_ref=f"{name}@{version}")
    parts = [_file(path, data, version) for path, data in files.items()]
    bom = Bom(components=[*parts, *packages.values()], metadata=BomMetaData(component=bundle))
    bom.register_dependency(bundle, parts)
    for part in parts:
        bom.register_dependency(part, [packages[pin] for pin in direct])
    for pin, package in packages.items():
        needed = required(importlib.metadata.distribution(pin))
        bom.register_dependency(package, [packages[name] for name in needed])
    document: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    # Both are optional, and the library makes them of the clock and of random numbers.
    del document["metadata"]["timestamp"], document["serialNumber"]
    content = json.dumps(document, sort_keys=True)
    return {**document, "serialNumber": uuid.uuid5(uuid.NAMESPACE_OID, content).urn}


def _file(path: str, data: bytes, version: str) -> Component:
    return Component(
        name=path,
        version=version,
        # The model as it was written and as it was compiled; modules with its classes are plain files.
        type=ComponentType.FILE if path.startswith(FOLDER) else ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=path,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=hashlib.sha256(data).hexdigest())],
    )


def _package(name: str, found: importlib.metadata.Distribution) -> Component:
    purl = PackageURL("pypi", name=name, version=found.version)
    return Component(
        name=name,
        version=found.version,
        type=ComponentType.LIBRARY,
        bom_ref=str(purl),
        purl=purl,
        licenses=licenses_of(found.metadata),
    )


def licenses_of(metadata: Any) -> list[License]:
    """What the package itself says: an SPDX expression, else its classifiers, else a name."""
    declared = LicenseAcknowledgement.DECLARED
    licenses = LicenseFactory()
    if expression := metadata.get("License-Expression"):
        return [licenses.make_from_string(expression, license_acknowledgement=declared)]
    classifiers = [text for text in metadata.get_all("Classifier") or [] if text.startswith("License :: ")]
    names = sorted({text.rpartition(" :: ")[2] for text in classifiers} - {"OSI Approved"})
    if not names and (text := metadata.get("License", "").strip()) and "\n" not in text and len(text) <= _LONGEST_NAME:
        names = [text]
    if len(names) == 1:
        return [licenses.make_from_string(names[0], license_acknowledgement=declared)]
    return [licenses.make_with_name(name, acknowledgement=declared) for name in names]
