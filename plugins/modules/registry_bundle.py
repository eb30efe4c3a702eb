# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

# A virtual module: the action plugin of the same name does the work, on the controller.

DOCUMENTATION = r"""
module: registry_bundle
short_description: Publish a bundle
version_added: 0.1.0
author:
  - modelfleet contributors (@modelfleet)
description:
  - Checks a bundle on the controller, signs it where a key is given, and puts it into a registry as a tar.
  - A version never changes there. The same bundle again changes nothing, another one of that version is refused.
  - A registry is a folder, or what an HTTP(S) server has below an address. The server takes GET, and PUT with
    C(If-None-Match) and C(If-Match), by which it keeps two publishers apart.
  - Credentials are taken from E(MODELFLEET_REGISTRY_TOKEN) or from netrc, and are never shown.
extends_documentation_fragment:
  - modelfleet.onprem.attributes.action
attributes:
  check_mode:
    description: Can run in check mode, and then tells what it would change without changing it.
    support: full
  diff_mode:
    description: Returns what changed, or in check mode what would change, when diff mode is on.
    support: none
options:
  bundle:
    description: The bundle, a folder or a C(.tar), as a path on the controller. It stays as it is.
    type: path
  registry:
    description: A folder, or an http(s) address. A relative folder is below the working directory.
    type: str
  inventory_registry:
    description: The inventory's registry, where O(registry) is not given. A relative folder is below the inventory's.
    type: str
  key:
    description: A private key to sign with, or a public one whose private half is in ssh-agent.
    type: path
  alias:
    description: A name for this version from now on, such as V(champion).
    type: str
"""

EXAMPLES = r"""
- name: Publish the third version of the tumour model
  modelfleet.onprem.registry_bundle:
    bundle: bundles/tumour-3
    registry: /srv/models
    key: ~/.ssh/release.pub
    alias: champion
"""

RETURN = r"""
name:
  description: The model's name.
  returned: success
  type: str
  sample: tumour
release:
  description: Version and the first digits of the digest.
  returned: success
  type: str
  sample: 3-0a1b2c3d4e5f
digest:
  description: The sha256 of the bundle's manifest.
  returned: success
  type: str
  sample: 0a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6e7f8a9b0c1d2e3f4a5b6c7d8e9f0a1b
address:
  description: Where it is.
  returned: success
  type: str
  sample: /srv/models/tumour/3.tar
signature:
  description: Whose signature it has, or V(none).
  returned: success
  type: str
  sample: one by the key SHA256:mVtq0K5bZ4SZ0dO7b8X3Y9lQ3m0n4k1kq9C7V2h5ZxE
"""
