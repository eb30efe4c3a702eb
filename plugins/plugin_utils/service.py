# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services as an inventory defines them: read, checked and turned into what a slot and a balancer need.

Runs on the controller only. Everything here is pure but ``resolve_address``, which looks names up; what is wrong with a
definition is a ``ServiceError`` of one line that names the service, the key, what was expected and what was found.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from itertools import product
from pathlib import Path
from socket import getaddrinfo
from typing import Any, Literal, get_args

from ansible_collections.modelfleet.onprem.plugins.module_utils._bundle import NAME
from ansible_collections.modelfleet.onprem.plugins.module_utils._layout import SERVICE
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.canary import Canary, parse_canary
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.policy import Policy, PolicyError, parse_policy

Slot = Literal["blue", "green"]
Strategy = Literal["basic", "rolling", "blue_green", "canary"]
SLOTS: tuple[Slot, ...] = get_args(Slot)
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
HOOKS = ("before_deploy", "before_traffic", "after_traffic", "on_failure", "after_deploy")
"""When a rollout includes task files of the user's own, in this order."""
SCORERS = ("auto", "native")
ACCESS_LOGS = ("off", "errors", "all")

_BATCH = re.compile(r"[1-9][0-9]{0,2}%|[1-9][0-9]*")
_MEMORY = re.compile(r"[1-9][0-9]*[KMGT]?")
# What a service's other keys, or the slot itself, set in the model server's environment.
_OWN_SETTINGS = (
    "ACCESS_LOG",
    "BIND",
    "CAPTURE_DIR",
    "CAPTURE_MAX_BYTES",
    "CAPTURE_REDACT",
    "CAPTURE_SHARE",
    "GATE_KEY_SHA256",
    "GRACEFUL_TIMEOUT",
    "MAX_BODY_BYTES",
    "MAX_ROWS",
    "MAX_WAIT_MS",
    "METRICS_BIND",
    "MODEL_BUNDLE",
    "MODEL_DIGEST",
    "MODEL_ENV",
    "MODEL_SERVICE",
    "SCORER",
    "THREADS",
    "WORKERS",
)
# The balancer reads "/v2/..." as the Open Inference Protocol's paths, and keeps its state and the journal where
# services of the other names would.
_RESERVED = ("lb", "rollouts", "v2")


class ServiceError(ValueError):
    """A definition that cannot be used, in one line."""


def other(slot: Slot) -> Slot:
    """The slot beside ``slot``."""
    return "green" if slot == "blue" else "blue"


@dataclass(frozen=True)
class Service:
    """One entry of ``modelfleet_services``.

    Times are in seconds, ``max_body_bytes`` in bytes, ``memory_max`` as systemd writes it (``1G``). ``slot_hosts``
    names the hosts of each slot: the same hosts twice, or two host groups. ``capture_share`` is the share of requests
    that are kept, 0 to 1. ``gates`` is the complete policy. The gates
    of the services that it ``requires`` come before its own, and it is watched for ``watch`` once it serves. Its slots
    listen on ``listens_on``, every IPv4 address of a host, or ``[::]``, every address of either kind.
    """

    name: str
    port: int
    slot_hosts: Mapping[Slot, tuple[str, ...]]
    model: str
    strategy: Strategy = "blue_green"
    batches: tuple[int | str, ...] = (1, "25%", "100%")
    max_fail_percentage: int = 0
    keep_warm: bool = True
    keep_releases: int = 5
    workers: int = 2
    threads: int = 1
    scorer: str = "auto"
    memory_max: str = "1G"
    tasks_max: int = 256
    max_body_bytes: int = 8 * 1024 * 1024
    max_rows: int = 100_000
    max_wait_ms: int = 1000
    access_log: str = "errors"
    metrics_port: int | None = None
    capture_share: float = 0
    capture_max_bytes: int = 64 * 1024 * 1024
    capture_redact: tuple[str, ...] = ()
    ready_timeout: int = 60
    drain_timeout: int = 30
    gates: Policy = field(default_factory=lambda: parse_policy({}))
    allowed_signers: str = ""
    revoked_keys: str = ""
    signers: tuple[str, ...] = ()
    registry: str = ""
    pull: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    canary: Canary | None = None
    hooks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    requires: tuple[str, ...] = ()
    watch: int = 0
    listens_on: str = "0.0.0.0"

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every host of the service, each once, in the inventory's order."""
        return tuple(dict.fromkeys(host for slot in SLOTS for host in self.slot_hosts[slot]))

    def port_of(self, slot: Slot) -> int:
        """Blue listens on the service's port, green on the next one."""
        return self.port + SLOTS.index(slot)

    def ports_of(self, slot: Slot) -> tuple[int, ...]:
        """Every port that the slot listens on: that of metrics alone follows the same rule."""
        metrics = () if self.metrics_port is None else (self.metrics_port + SLOTS.index(slot),)
        return (self.port_of(slot), *metrics)

    @property
    def max_in_flight(self) -> int:
        """How many requests a balancer sends a server at once: those that are scored, and as many as soon will be."""
        return 4 * self.workers * self.threads

    def settings(self, slot: Slot) -> dict[str, str]:
        """The environment that the model server of this slot starts with."""
        settings = {
            **self.environment,
            "ACCESS_LOG": self.access_log,
            "BIND": f"{self.listens_on}:{self.port_of(slot)}",
            "GRACEFUL_TIMEOUT": str(self.drain_timeout),
            "MAX_BODY_BYTES": str(self.max_body_bytes),
            "MAX_ROWS": str(self.max_rows),
            "MAX_WAIT_MS": str(self.max_wait_ms),
            "MODEL_SERVICE": self.name,
            "SCORER": self.scorer,
            "THREADS": str(self.threads),
            "WORKERS": str(self.workers),
        }
        if self.metrics_port is not None:
            settings["METRICS_BIND"] = f"{self.listens_on}:{self.ports_of(slot)[1]}"
        if self.capture_share:
            settings["CAPTURE_SHARE"] = f"{self.capture_share:g}"
            settings["CAPTURE_MAX_BYTES"] = str(self.capture_max_bytes)
            settings["CAPTURE_REDACT"] = ",".join(self.capture_redact)
        return settings

    def limits(self) -> dict[str, str]:
        """The unit's limits, by systemd's names."""
        return {"MemoryMax": self.memory_max, "TasksMax": str(self.tasks_max)}


def _whole(minimum: int, maximum: int) -> tuple[str, Any]:
    def suits(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum

    return f"a whole number from {minimum} to {maximum}", suits


def _is_batches(value: object) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(_BATCH.fullmatch(str(batch)) for batch in value)


def _is_hooks(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        when in HOOKS and isinstance(files, (list, tuple)) and all(isinstance(file, str) and file for file in files)
        for when, files in value.items()
    )


def _is_share(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


def _is_columns(value: object) -> bool:
    # They reach the model server in one variable, with commas between them.
    return isinstance(value, (list, tuple)) and all(
        isinstance(name, str) and name.strip() == name and name.isprintable() and name and "," not in name
        for name in value
    )


def _is_services(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(name, str) and SERVICE.fullmatch(name) for name in value)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_environment(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(key, str) and re.fullmatch(r"[A-Z][A-Z0-9_]*", key) for key in value
    )


def _check_environment(where: str, environment: Mapping[str, object]) -> None:
    """ServiceError for a name that is not the service's to set, or a value that does not fit in a unit's file."""
    for name, value in environment.items():
        if name in _OWN_SETTINGS:
            raise ServiceError(f"{where}: expected none of {', '.join(_OWN_SETTINGS)}, found {name}")
        # The value may be a secret, so no more of it is told.
        unprintable = [character for character in str(value) if not character.isprintable()]
        if unprintable:
            raise ServiceError(f"{where}.{name}: expected one line of printable text, found {unprintable[0]!r} in it")


# What each optional key of a definition must be: in words, and as a check.
_KEYS: dict[str, tuple[str, Any]] = {
    "access_log": (f"one of {', '.join(ACCESS_LOGS)}", lambda value: value in ACCESS_LOGS),
    "allowed_signers": ("the path of a file of allowed signers, or its content", _is_text),
    "batches": ('a list of counts and percentages such as [1, "25%", "100%"]', _is_batches),
    "capture_max_bytes": _whole(65_536, 2**40),
    "capture_redact": ("a list of columns without commas in their names", _is_columns),
    "capture_share": ("a number from 0 to 1", _is_share),
    "drain_timeout": _whole(1, 3600),
    "environment": ("a mapping of upper-case names to values", _is_environment),
    "gates": ("a mapping of gates to enforce, warn or off", lambda value: isinstance(value, Mapping)),
    "hooks": (f"a mapping of some of {', '.join(HOOKS)} to lists of task files", _is_hooks),
    "keep_releases": _whole(2, 1000),
    "keep_warm": ("true or false", lambda value: isinstance(value, bool)),
    "max_body_bytes": _whole(1024, 2**31),
    "max_fail_percentage": _whole(0, 100),
    "max_rows": _whole(1, 2**31),
    "max_wait_ms": _whole(1, 3_600_000),
    "memory_max": ("a size such as 512M or 2G", lambda value: bool(_MEMORY.fullmatch(str(value)))),
    "metrics_port": _whole(1024, 65_534),
    "model": ("a name of lower-case letters, digits, - and _", lambda value: bool(NAME.fullmatch(str(value)))),
    "pull": ("true or false", lambda value: isinstance(value, bool)),
    "ready_timeout": _whole(1, 3600),
    "registry": ("a folder or an http(s) address", _is_text),
    "requires": ("a list of services", _is_services),
    "revoked_keys": ("the path of a file of keys or of a key revocation list, or a list's content", _is_text),
    "scorer": (f"one of {', '.join(SCORERS)}", lambda value: value in SCORERS),
    "signers": ("a list of principals of allowed_signers", _is_columns),
    "strategy": (f"one of {', '.join(STRATEGIES)}", lambda value: value in STRATEGIES),
    "tasks_max": _whole(8, 65_536),
    "threads": _whole(1, 256),
    "watch": _whole(0, 86_400),
    "workers": _whole(1, 256),
}


def parse_services(definitions: object, groups: Mapping[str, Sequence[str]]) -> dict[str, Service]:
    """The services of ``definitions`` (the inventory's ``modelfleet_services``), with the hosts of ``groups``."""
    if not isinstance(definitions, Mapping) or not definitions:
        raise ServiceError(
            "modelfleet_services: expected a mapping of at least one service in the inventory, found none"
        )
    services = {str(name): _parse_service(str(name), found, groups) for name, found in definitions.items()}
    _check_ports(services.values())
    for service in services.values():
        for name in service.requires:
            if name not in services:
                known = ", ".join(sorted(services))
                raise ServiceError(
                    f"modelfleet_services.{service.name}.requires: expected some of {known}, found {name!r}"
                )
    order_services(list(services.values()))
    return services


def order_services(services: Sequence[Service]) -> list[Service]:
    """The services, each after those that it requires, and else as they are; ServiceError if that cannot be."""
    left, ordered = list(services), list[Service]()
    while left:
        waiting = {service.name for service in left}
        free = [service for service in left if not waiting & set(service.requires)]
        if not free:
            raise ServiceError(
                f"modelfleet_services: expected no service to require itself, found {', '.join(sorted(waiting))}"
            )
        ordered.append(free[0])
        left.remove(free[0])
    return ordered


def find_service(services: Mapping[str, Service], name: str | None) -> Service:
    """The service called ``name``."""
    known = ", ".join(sorted(services))
    if not name:
        raise ServiceError(f"service: expected -e service=NAME, one of {known}, found nothing")
    if name not in services:
        raise ServiceError(f"service: expected one of {known}, found {name!r}")
    return services[name]


def find_asked(
    services: Mapping[str, Service], several: object, name: str | None, source: Mapping[str, str | None]
) -> dict[str, Mapping[str, str | None]]:
    """What is asked for, by service: where its bundle comes from, ``bundle`` (a path) or ``version`` (in a registry).

    Either the service ``name`` from ``source``, or ``several``: a list of names, or a mapping of names to versions, or
    to mappings with either key.
    """
    if several is None:
        return {find_service(services, name).name: source}
    if name or any(source.values()):
        raise ServiceError("services: expected neither service, bundle nor version beside them, found one")
    asked = {each: {} for each in several} if isinstance(several, (list, tuple)) else several
    if not isinstance(asked, Mapping) or not asked:
        raise ServiceError(
            'services: expected names and versions such as {"tumour": "7", "prices": {"bundle": "PATH"}}, '
            f"found {several!r}"
        )
    return {find_service(services, str(each)).name: _source(str(each), found) for each, found in asked.items()}


def _source(name: str, found: object) -> Mapping[str, str | None]:
    if isinstance(found, (str, int)) and not isinstance(found, bool):
        return {"version": str(found)}
    if isinstance(found, Mapping) and set(found) <= {"bundle", "version"}:
        return {str(key): str(value) for key, value in found.items()}
    raise ServiceError(f"services.{name}: expected a version, or a bundle, found {found!r}")


def check_balancers(groups: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The hosts of the group ``load_balancers``, of which there must be one."""
    balancers = tuple(groups.get("load_balancers", ()))
    if not balancers:
        raise ServiceError("inventory: expected at least one host in the group load_balancers, found none")
    return balancers


def _parse_service(name: str, found: object, groups: Mapping[str, Sequence[str]]) -> Service:
    where = f"modelfleet_services.{name}"
    if not SERVICE.fullmatch(name) or name in _RESERVED:
        raise ServiceError(
            f"{where}: expected a name of up to 40 lower-case letters, digits, - and _, not {', '.join(_RESERVED)}, "
            f"found {name!r}"
        )
    if not isinstance(found, Mapping):
        raise ServiceError(f"{where}: expected a mapping with at least a port, found {found!r}")
    unknown = sorted(set(map(str, found)) - {"port", "hosts", "canary", *_KEYS})
    if unknown:
        raise ServiceError(f"{where}: expected the keys port, hosts, canary, {', '.join(_KEYS)}, found {unknown[0]!r}")
    words, suits = _whole(1024, 65_534)
    if not suits(found.get("port")):
        raise ServiceError(f"{where}.port: expected {words}, found {found.get('port')!r}")
    options: dict[str, Any] = {}
    for key, value in found.items():
        if key not in _KEYS:
            continue
        words, suits = _KEYS[key]
        if not suits(value):
            raise ServiceError(f"{where}.{key}: expected {words}, found {value!r}")
        options[str(key)] = value
    for key in ("batches", "capture_redact", "requires", "signers"):
        if key in options:
            options[key] = tuple(options[key])
    if "hooks" in options:
        options["hooks"] = {str(when): tuple(files) for when, files in options["hooks"].items()}
    if "memory_max" in options:
        options["memory_max"] = str(options["memory_max"])
    if "environment" in options:
        _check_environment(f"{where}.environment", options["environment"])
        options["environment"] = {str(key): str(text) for key, text in options["environment"].items()}
    if "canary" in found:
        try:
            options["canary"] = parse_canary(f"{where}.canary", found["canary"])
        except ValueError as error:
            raise ServiceError(str(error)) from error
    try:
        options["gates"] = parse_policy(options.get("gates", {}), signed=bool(options.get("allowed_signers")))
    except PolicyError as error:
        raise ServiceError(f"{where}.{error}") from None
    options.setdefault("model", name)
    slot_hosts = _parse_hosts(f"{where}.hosts", found.get("hosts", "model_hosts"), groups)
    service = Service(name=name, port=int(found["port"]), slot_hosts=slot_hosts, **options)
    find_strategy(service, None)
    return service


def _parse_hosts(where: str, found: object, groups: Mapping[str, Sequence[str]]) -> dict[Slot, tuple[str, ...]]:
    if isinstance(found, str):
        found = dict.fromkeys(SLOTS, found)
    if not isinstance(found, Mapping) or set(found) != set(SLOTS):
        raise ServiceError(f"{where}: expected a group, or the keys blue and green with a group each, found {found!r}")
    hosts: dict[Slot, tuple[str, ...]] = {}
    for slot in SLOTS:
        group = str(found[slot])
        if not groups.get(group):
            raise ServiceError(f"{where}: expected a group with hosts in it, found {group!r} with none")
        hosts[slot] = tuple(groups[group])
    if hosts["blue"] != hosts["green"] and set(hosts["blue"]) & set(hosts["green"]):
        both = sorted(set(hosts["blue"]) & set(hosts["green"]))
        raise ServiceError(f"{where}: expected blue and green to share no host or all of them, found {both[0]} in both")
    return hosts


def _check_ports(services: Any) -> None:
    taken: dict[tuple[str, int], str] = {}
    for service in services:
        for slot in SLOTS:
            for host, port in product(service.slot_hosts[slot], service.ports_of(slot)):
                # Of one service's two slots and two kinds of ports, each listens on its own, too.
                owner = taken.setdefault((host, port), f"{service.name} {slot}")
                if owner != f"{service.name} {slot}" or service.ports_of(slot).count(port) > 1:
                    key = "port" if port == service.port_of(slot) else "metrics_port"
                    raise ServiceError(
                        f"modelfleet_services.{service.name}.{key}: expected ports of its own on {host} (blue takes "
                        f"the port, green the next), found {port}, which {owner.split()[0]} has"
                    )


def balancer_pools(services: Mapping[str, Service], hostvars: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The pools that a balancer needs: two a service, each with its servers' names, addresses and ports."""
    pools = []
    for service in services.values():
        for slot in SLOTS:
            servers = [
                {"name": host, "address": address_of(host, hostvars), "port": service.port_of(slot)}
                for host in service.slot_hosts[slot]
            ]
            pools.append(
                {
                    "name": f"{service.name}_{slot}",
                    "service": service.name,
                    "slot": slot,
                    "servers": servers,
                    "max_in_flight": service.max_in_flight,
                    **({"canary": service.canary.rules(service.name)} if service.canary else {}),
                }
            )
    return pools


def address_of(host: str, hostvars: Mapping[str, Mapping[str, Any]]) -> str:
    """The address under which machines of the fleet reach ``host``."""
    found = hostvars[host]
    return str(found.get("modelfleet_address") or found.get("ansible_host") or host)


def reached_by(service: Service, hostvars: Mapping[str, Mapping[str, Any]]) -> Service:
    """The service as it listens on hosts with these variables: where one has an IPv6 address, on all of both kinds."""
    known = [host for host in service.hosts if host in hostvars]
    return (
        replace(service, listens_on="[::]") if any(_is_ipv6(address_of(host, hostvars)) for host in known) else service
    )


def _is_ipv6(address: str) -> bool:
    try:
        return ip_address(address).version == 6
    except ValueError:
        return False


def resolve_address(host: str, hostvars: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The IP addresses under which machines of the fleet reach ``host``, for what takes no names; sorted."""
    found = address_of(host, hostvars)
    try:
        return [str(ip_address(found))]
    except ValueError:
        pass
    try:
        return sorted({str(place[0]) for *_kind, place in getaddrinfo(found, None)})
    except (OSError, UnicodeError) as error:
        raise ServiceError(
            f"address of {host}: expected an IP address or a name that resolves, found {found!r}: "
            "set modelfleet_address"
        ) from error


def find_strategy(service: Service, asked: str | None) -> Strategy:
    """The strategy of this rollout: what was asked for, or what the inventory says."""
    if asked and asked not in STRATEGIES:
        raise ServiceError(f"strategy: expected one of {', '.join(STRATEGIES)}, found {asked!r}")
    strategy: Strategy = asked or service.strategy
    if strategy == "canary" and service.canary is None:
        # The balancers have to know how its users are told apart, before there is one.
        raise ServiceError(
            f"modelfleet_services.{service.name}.canary: expected one for the strategy canary, found none: "
            "add it and run provision.yml"
        )
    return strategy


def find_hooks(services: Sequence[Service], for_all: object) -> dict[str, list[str]]:
    """The task files of a rollout's hooks: those of ``for_all`` services first, then each service's own, each once.

    A path is meant from where the command was given. ``webhook`` is the collection's own, and stays as it is.
    """
    words, suits = _KEYS["hooks"]
    if for_all is not None and not suits(for_all):
        raise ServiceError(f"modelfleet_hooks: expected {words}, found {for_all!r}")
    common: Mapping[str, Sequence[str]] = for_all if isinstance(for_all, Mapping) else {}
    own = {when: [file for service in services for file in service.hooks.get(when, ())] for when in HOOKS}
    found = {when: dict.fromkeys([*common.get(when, ()), *own[when]]) for when in HOOKS}
    names = ", ".join(service.name for service in services)
    return {when: [_hook(names, when, file) for file in files] for when, files in found.items() if files}


def _hook(names: str, when: str, file: str) -> str:
    if file == "webhook":
        return file
    path = Path(file).absolute()
    if not path.is_file():
        raise ServiceError(f"hooks of {names}, {when}: expected a file of tasks, found none at {path}")
    return str(path)
