"""An Ansible inventory as the description of a fleet: which hosts there are, and what each is made from."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from testbed.command import StepError

RELEASES = ("bookworm", "trixie")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
_PUBLISH = re.compile(r"127\.0\.0\.1:(\d{1,5}):(\d{1,5})")


@dataclass(frozen=True)
class Port:
    """A port of this machine's loopback interface that leads to a port of a host."""

    outer: int
    inner: int

    def __str__(self) -> str:
        return f"127.0.0.1:{self.outer}:{self.inner}"


@dataclass(frozen=True)
class Host:
    """One machine of the fleet. ``tmpfs`` maps a folder to the mount options of a small file system of its own."""

    name: str
    address: str
    port: int
    release: str
    publish: tuple[Port, ...] = ()
    tmpfs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Fleet:
    """The hosts of one inventory. ``subnet`` is None for a fleet of virtual machines, reached through loopback.

    ``floating`` are addresses that one of the hosts holds at a time.
    """

    name: str
    kind: str
    subnet: str | None
    user: str
    hosts: tuple[Host, ...]
    floating: tuple[str, ...] = ()


class _Loader(yaml.SafeLoader):
    """Reads Ansible's own tags as the plain values below them: the testbed uses none of these."""


def _plain(loader: yaml.SafeLoader, node: yaml.Node) -> object:
    return loader.construct_scalar(node) if isinstance(node, yaml.ScalarNode) else None


for _tag in ("!vault", "!unsafe"):
    _Loader.add_constructor(_tag, _plain)


def read_fleet(path: Path) -> Fleet:
    """The fleet of an inventory file, or of the ``hosts.yml`` in an inventory folder."""
    path = path / "hosts.yml" if path.is_dir() else path
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise StepError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise StepError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    try:
        return fleet(data)
    except ValueError as error:
        raise StepError(f"{path}: {error}") from error


def fleet(data: object) -> Fleet:
    """The fleet that an inventory's content describes. Raises ValueError saying where, what was expected and found."""
    variables = _host_variables(data)
    everything = _mapping(_mapping(data, "the inventory").get("all"), "all")
    about = _mapping(_mapping(everything.get("vars"), "all.vars").get("testbed"), "all.vars.testbed")
    name, kind = about.get("name"), about.get("kind", "containers")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"all.vars.testbed.name: expected small letters, digits and dashes, found {name!r}")
    if kind not in ("containers", "vm"):
        raise ValueError(f"all.vars.testbed.kind: expected containers or vm, found {kind!r}")
    subnet = None if kind == "vm" else _network(about.get("subnet"))
    hosts = tuple(_host(host, variables[host], subnet) for host in sorted(variables))
    if not hosts:
        raise ValueError("expected at least one host, found none")
    _check_unique("ansible_host and ansible_port", [(f"{host.address} port {host.port}", host.name) for host in hosts])
    _check_unique("testbed_publish", [(f"port {port.outer}", host.name) for host in hosts for port in host.publish])
    users = sorted({str(variables[host.name].get("ansible_user", "ops")) for host in hosts})
    if users != ["ops"]:
        raise ValueError(f"ansible_user: expected ops, whom the images know, found {', '.join(users)}")
    floating = {_floating(host.name, variables[host.name], subnet) for host in hosts} - {""}
    return Fleet(name, kind, None if subnet is None else str(subnet), users[0], hosts, tuple(sorted(floating)))


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return value
    raise ValueError(f"{where}: expected a mapping, found {type(value).__name__}")


def _host_variables(data: object) -> dict[str, dict[str, Any]]:
    """Each host's variables, as Ansible merges them: those of a group further in count more, the host's own most."""
    variables: dict[str, dict[str, Any]] = {}
    hosts: dict[str, dict[str, dict[str, Any]]] = {}
    children: dict[str, set[str]] = {}

    def collect(name: str, group: Mapping[str, Any]) -> None:
        """A group may be spoken of in several places, each saying a part of it."""
        variables.setdefault(name, {}).update(_mapping(group.get("vars"), f"{name}.vars"))
        for host, own in _mapping(group.get("hosts"), f"{name}.hosts").items():
            hosts.setdefault(name, {}).setdefault(host, {}).update(_mapping(own, f"{name}.hosts.{host}"))
        for child, inner in _mapping(group.get("children"), f"{name}.children").items():
            children.setdefault(name, set()).add(child)
            collect(child, _mapping(inner, child))

    inherited: dict[str, list[tuple[int, str]]] = {}
    own: dict[str, dict[str, Any]] = {}

    def descend(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise ValueError(f"{name}: expected a group that is not within itself, found {' > '.join([*above, name])}")
        path = (*above, name)
        for host, values in hosts.get(name, {}).items():
            own.setdefault(host, {}).update(values)
            inherited.setdefault(host, []).extend((depth, group) for depth, group in enumerate(path))
        for child in sorted(children.get(name, ())):
            descend(child, path)

    for name, group in _mapping(data, "the inventory").items():
        collect(name, _mapping(group, name))
    for name in sorted(variables):
        if name == "all" or not any(name in inner for inner in children.values()):
            descend(name, ())
    merged: dict[str, dict[str, Any]] = {}
    for host, groups in inherited.items():
        merged[host] = {}
        for _depth, group in sorted(groups):
            merged[host].update(variables[group])
        merged[host].update(own[host])
    return merged


def _network(value: object) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(value)
    except ValueError as error:
        raise ValueError(f"all.vars.testbed.subnet: expected an IPv4 network, found {value!r}") from error


def _host(name: str, variables: Mapping[str, Any], subnet: ipaddress.IPv4Network | None) -> Host:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name}: expected a host name of small letters, digits and dashes")
    try:
        address = ipaddress.IPv4Address(variables.get("ansible_host"))
    except ValueError as error:
        found = variables.get("ansible_host")
        raise ValueError(f"{name}: ansible_host: expected an IPv4 address, found {found!r}") from error
    if subnet is not None and address not in subnet:
        raise ValueError(f"{name}: ansible_host: expected an address in {subnet}, found {address}")
    if subnet is None and not address.is_loopback:
        raise ValueError(f"{name}: ansible_host: a VM is reached through 127.0.0.1, found {address}")
    release = variables.get("testbed_release", RELEASES[0])
    if release not in RELEASES:
        raise ValueError(f"{name}: testbed_release: expected {' or '.join(RELEASES)}, found {release!r}")
    tmpfs = _mapping(variables.get("testbed_tmpfs"), f"{name}: testbed_tmpfs")
    return Host(
        name=name,
        address=str(address),
        port=int(variables.get("ansible_port", 22)),
        release=release,
        publish=tuple(_port(name, text) for text in variables.get("testbed_publish") or ()),
        tmpfs=tuple(sorted((str(folder), str(options)) for folder, options in tmpfs.items())),
    )


def _floating(name: str, variables: Mapping[str, Any], subnet: ipaddress.IPv4Network | None) -> str:
    text = variables.get("load_balancer_address", "")
    if not text:
        return ""
    try:
        address = ipaddress.IPv4Interface(text).ip
    except ValueError as error:
        raise ValueError(f"{name}: load_balancer_address: expected an address and a prefix, found {text!r}") from error
    if subnet is None or address not in subnet:
        raise ValueError(f"{name}: load_balancer_address: expected an address in {subnet}, found {address}")
    return str(address)


def _port(name: str, text: object) -> Port:
    match = _PUBLISH.fullmatch(str(text))
    if not match:
        raise ValueError(f"{name}: testbed_publish: expected 127.0.0.1:PORT:PORT, found {text!r}")
    return Port(int(match[1]), int(match[2]))


def _check_unique(where: str, values: list[tuple[str, str]]) -> None:
    owners: dict[str, str] = {}
    for value, host in values:
        if value in owners:
            raise ValueError(f"{host}: {where}: {value} is {owners[value]}'s already")
        owners[value] = host
