from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.command import ROOT, StepError
from testbed.inventory import Host, Port, fleet, read_fleet

OURS = ["inventories/demo", "molecule/inventory", "molecule/virtual_machine/inventory"]


def inventory(hosts: dict[str, Any], **about: Any) -> dict[str, Any]:
    testbed = {"name": "try", "subnet": "10.0.0.0/24", **about}
    return {"all": {"children": {"model_hosts": {"hosts": hosts}}, "vars": {"testbed": testbed}}}


def test_a_host_is_described_by_its_variables() -> None:
    described = fleet(
        inventory(
            {
                "model1": {"ansible_host": "10.0.0.1"},
                "lb1": {
                    "ansible_host": "10.0.0.2",
                    "testbed_release": "trixie",
                    "testbed_publish": ["127.0.0.1:18080:80"],
                    "testbed_tmpfs": {"/opt/modelfleet": "size=64m"},
                },
            }
        )
    )
    assert described.hosts == (
        Host("lb1", "10.0.0.2", 22, "trixie", (Port(18080, 80),), (("/opt/modelfleet", "size=64m"),)),
        Host("model1", "10.0.0.1", 22, "bookworm"),
    )
    assert (described.name, described.subnet, described.user) == ("try", "10.0.0.0/24", "ops")


def test_a_groups_variables_count_for_its_hosts_and_a_hosts_own_count_more() -> None:
    data = inventory(
        {"a": {"ansible_host": "10.0.0.1"}, "b": {"ansible_host": "10.0.0.2", "testbed_release": "bookworm"}}
    )
    data["all"]["children"]["model_hosts"]["vars"] = {"testbed_release": "trixie"}
    assert [host.release for host in fleet(data).hosts] == ["trixie", "bookworm"]


def test_a_host_in_two_groups_is_one_host() -> None:
    data = inventory({"vm1": {"ansible_host": "10.0.0.1", "testbed_release": "trixie"}})
    data["all"]["children"]["load_balancers"] = {"hosts": {"vm1": None}}
    assert [(host.name, host.release) for host in fleet(data).hosts] == [("vm1", "trixie")]


def test_a_group_may_be_spoken_of_in_several_places() -> None:
    data = inventory({"a": {"ansible_host": "10.0.0.1"}, "b": {"ansible_host": "10.0.0.2"}})
    data["all"]["children"]["machines"] = {"children": {"model_hosts": {}}, "vars": {"testbed_release": "trixie"}}
    data["all"]["vars"]["testbed_release"] = "bookworm"
    data["some"] = {"hosts": {"b": {}}}
    assert [host.release for host in fleet(data).hosts] == ["trixie", "trixie"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (inventory({}), "expected at least one host, found none"),
        (inventory({"a": {}}), "a: ansible_host: expected an IPv4 address, found None"),
        (
            inventory({"a": {"ansible_host": "10.1.0.1"}}),
            "a: ansible_host: expected an address in 10.0.0.0/24, found 10.1",
        ),
        (inventory({"A_b": {"ansible_host": "10.0.0.1"}}), "A_b: expected a host name"),
        (
            inventory({"a": {"ansible_host": "10.0.0.1", "testbed_release": "sid"}}),
            "a: testbed_release: expected bookworm or trixie, found 'sid'",
        ),
        (
            inventory({"a": {"ansible_host": "10.0.0.1", "testbed_publish": ["0.0.0.0:80:80"]}}),
            "a: testbed_publish: expected 127.0.0.1:PORT:PORT, found '0.0.0.0:80:80'",
        ),
        (
            inventory({"a": {"ansible_host": "10.0.0.1"}, "b": {"ansible_host": "10.0.0.1"}}),
            "b: ansible_host and ansible_port: 10.0.0.1 port 22 is a's already",
        ),
        (inventory({}, name=None), "all.vars.testbed.name: expected small letters, digits and dashes, found None"),
        (inventory({}, subnet="here"), "all.vars.testbed.subnet: expected an IPv4 network, found 'here'"),
        (inventory({}, kind="cloud"), "all.vars.testbed.kind: expected containers or vm, found 'cloud'"),
        (
            inventory({"a": {"ansible_host": "10.0.0.1"}}, kind="vm"),
            "a VM is reached through 127.0.0.1, found 10.0.0.1",
        ),
        ({"all": {"vars": []}}, "all.vars: expected a mapping, found list"),
        (
            inventory({"a": {"ansible_host": "10.0.0.1", "ansible_user": "root"}}),
            "ansible_user: expected ops, whom the",
        ),
        ({"all": {"children": {"a": {"children": {"b": {"children": {"a": {}}}}}}}}, "found all > a > b > a"),
        ([], "the inventory: expected a mapping, found list"),
    ],
)
def test_what_describes_no_fleet_is_refused(data: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        fleet(data)


@pytest.mark.parametrize(
    ("content", "message"), [("a: [", "not YAML"), ("all: {}", "all.vars.testbed.name"), (None, "cannot be read")]
)
def test_a_file_that_is_no_inventory_is_one_clear_line(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "hosts.yml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(StepError) as caught:
        read_fleet(tmp_path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_values_that_ansible_alone_can_read_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "hosts.yml"
    hosts = "{a: {ansible_host: 10.0.0.1, secret: !vault 'x', text: !unsafe '{{ x }}'}}"
    path.write_text(f"all: {{hosts: {hosts}, vars: {{testbed: {{name: try, subnet: 10.0.0.0/24}}}}}}")
    assert [host.name for host in read_fleet(path).hosts] == ["a"]


def test_our_fleets_can_be_up_side_by_side() -> None:
    fleets = [read_fleet(ROOT / path) for path in OURS]
    ports = [port.outer for described in fleets for host in described.hosts for port in host.publish]
    ports += [host.port for described in fleets for host in described.hosts if described.kind == "vm"]
    assert len(ports) == len(set(ports))
    subnets = [described.subnet for described in fleets if described.subnet]
    assert len(subnets) == len(set(subnets))
    assert len({described.name for described in fleets}) == len(fleets)


@pytest.mark.parametrize("path", OURS)
def test_our_inventories_log_in_with_the_testbeds_keys_to_pinned_hosts(path: str) -> None:
    everything = yaml.safe_load((ROOT / path / "hosts.yml").read_text())["all"]
    variables = everything["children"]["machines"]["vars"]
    inventory_dir, name = str(ROOT / path), everything["vars"]["testbed"]["name"]

    def rendered(text: str) -> str:
        return text.replace("{{ inventory_dir }}", inventory_dir).replace("{{ testbed.name }}", name)

    key = Path(rendered(variables["ansible_ssh_private_key_file"]))
    assert key.resolve() == ROOT / ".testbed" / "id_ed25519"
    arguments = rendered(variables["ansible_ssh_common_args"]).split()
    assert "StrictHostKeyChecking=yes" in arguments
    known = next(argument for argument in arguments if argument.startswith("UserKnownHostsFile="))
    assert Path(known.split("=")[1]).resolve() == ROOT / ".testbed" / name / "known_hosts"
