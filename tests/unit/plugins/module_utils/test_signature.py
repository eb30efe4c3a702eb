# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signatures by the real ssh-keygen: which hold, and what is said of each that does not."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils import _signature
from ansible_collections.modelfleet.onprem.plugins.module_utils._signature import (
    NAMESPACE,
    SignatureError,
    Trust,
    check_intact,
    check_signature,
    parse_allowed_signers,
    parse_signature,
    read_allowed_signers,
    read_revoked_keys,
    sign,
)

from tests.unit.plugins.signing import Person, make_person

DATA = b'{"schema": 1}\n'


@pytest.fixture(scope="module")
def alice(tmp_path_factory: pytest.TempPathFactory) -> Person:
    return make_person("alice", tmp_path_factory.mktemp("alice"))


@pytest.fixture(scope="module")
def bob(tmp_path_factory: pytest.TempPathFactory) -> Person:
    return make_person("bob", tmp_path_factory.mktemp("bob"))


@pytest.fixture(scope="module")
def signature(alice: Person) -> bytes:
    return sign(DATA, alice.key)


@pytest.mark.parametrize(
    "options",
    ["", 'namespaces="modelfleet-bundle"', 'namespaces="git,modelfleet-bundle"', 'valid-after="20200101"',
     'valid-after="20200101Z",valid-before="21060101000000Z"'],
)  # fmt: skip
def test_a_signature_by_whom_is_allowed_holds(alice: Person, bob: Person, signature: bytes, options: str) -> None:
    found = check_signature(DATA, signature, Trust(bob.line() + alice.line(options)))
    assert (found.passed, found.advice) == (True, "")
    assert re.fullmatch(r"one by alice, the key SHA256:[A-Za-z0-9+/]{43}", found.found)


@pytest.mark.parametrize("options", ['namespaces="git"', 'valid-before="20200101"'])
def test_a_key_may_have_several_lines_of_which_one_fits(
    alice: Person, bob: Person, signature: bytes, options: str
) -> None:
    lines = [alice.line(options), bob.line(), f'releases namespaces="{NAMESPACE}" {alice.public}\n']
    for allowed in (lines, lines[::-1]):
        found = check_signature(DATA, signature, Trust("".join(allowed)))
        assert (found.passed, found.found.split(",")[0]) == (True, "one by releases")


def test_an_authority_may_have_several_lines_of_which_one_fits(alice: Person, bob: Person, tmp_path: Path) -> None:
    key = tmp_path / "bob"
    key.write_bytes(bob.key.read_bytes())
    key.chmod(0o600)
    key.with_suffix(".pub").write_text(f"{bob.public}\n")
    certify = ["ssh-keygen", "-q", "-s", alice.key, "-I", "bob", "-n", "bob@git,bob@releases", key.with_suffix(".pub")]
    subprocess.run(certify, check=True)
    signature = sign(DATA, tmp_path / "bob-cert.pub")
    lines = "".join(
        f'*@{name} cert-authority,namespaces="{space}" {alice.public}\n'
        for name, space in (("git", "git"), ("releases", NAMESPACE))
    )
    found = check_signature(DATA, signature, Trust(lines))
    assert (found.passed, found.found.split(",")[0]) == (True, "one by bob@releases")


def test_the_fingerprint_is_the_one_that_ssh_keygen_shows(alice: Person, signature: bytes) -> None:
    shown = subprocess.run(["ssh-keygen", "-lf", alice.key], capture_output=True, text=True, check=True).stdout
    assert str(parse_signature(signature).key) == f"the key {shown.split()[1]}"


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ('valid-before="20200101Z"', "one by alice, KEY, valid until 2020-01-01 00:00 UTC"),
        ('valid-after="210001020304Z"', "one by alice, KEY, not valid before 2100-01-02 03:04 UTC"),
        ('namespaces="git,file"', "one by alice, KEY, allowed for git,file alone"),
    ],
)
def test_a_line_that_does_not_fit_says_why(
    alice: Person, bob: Person, signature: bytes, options: str, found: str
) -> None:
    finding = check_signature(DATA, signature, Trust(bob.line() + alice.line(options)))
    assert not finding.passed
    assert finding.found == found.replace("KEY", str(parse_signature(signature).key))
    assert finding.advice


def test_what_a_person_has_to_decide_is_said(alice: Person, bob: Person, signature: bytes) -> None:
    key, trust = parse_signature(signature).key, Trust(alice.line())
    assert check_signature(DATA, None, trust).found == "none"
    assert check_signature(DATA, b"signed, Alice", trust).found == (
        "no signature (expected the text of an SSH signature, found something else)"
    )
    stranger = check_signature(DATA, signature, Trust(bob.line()))
    assert (stranger.found, stranger.advice) == (
        f"one by {key}, which is not in allowed_signers",
        "find out whose key that is; add it only if its owner may release models of this service",
    )
    assert check_signature(DATA + b" ", signature, trust).found == f"one by {key} over other bytes"
    other = check_signature(DATA, signature, Trust(alice.line() + bob.line(), signers=("bob",)))
    assert (other.passed, other.found) == (False, f"one by alice, {key}")
    assert check_signature(DATA, signature, Trust(alice.line() + bob.line(), signers=("bob", "alice"))).passed


def test_a_signature_for_something_else_is_none_for_a_bundle(alice: Person) -> None:
    command = ["ssh-keygen", "-q", "-Y", "sign", "-n", "git", "-f", str(alice.key)]
    for_git = subprocess.run(command, input=DATA, capture_output=True, check=True).stdout
    found = check_signature(DATA, for_git, Trust(alice.line()))
    assert (found.passed, found.found) == (
        False,
        f"one by {parse_signature(for_git).key} for 'git' and not for {NAMESPACE!r}",
    )


@pytest.mark.parametrize("kind", ["list", "krl"])
def test_a_revoked_key_does_not_count(alice: Person, bob: Person, signature: bytes, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "revoked"
    if kind == "krl":
        subprocess.run(["ssh-keygen", "-q", "-k", "-f", path, alice.key.with_suffix(".pub")], check=True)
    else:
        path.write_text(f"# who has left\n{alice.public} alice\n")
    revoked = read_revoked_keys(path)
    key = parse_signature(signature).key
    # It is said, too, where somebody has taken the key off the allowed signers already.
    for lines in (alice.line(), bob.line()):
        found = check_signature(DATA, signature, Trust(lines, revoked))
        assert (found.passed, found.found) == (False, f"one by {key}, which is revoked")
    assert check_signature(DATA, sign(DATA, bob.key), Trust(bob.line(), revoked)).passed


def test_a_broken_revocation_list_revokes_nothing_and_is_refused(alice: Person, signature: bytes) -> None:
    for broken in ("U1NIS1JMCgAAAA==", "U1NIS1JMCgAAAAAAAAE="):
        with pytest.raises(SignatureError, match="revoked_keys: expected a key revocation list"):
            check_signature(DATA, signature, Trust(alice.line(), broken))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "allowed_signers: expected a line for each signer, found none"),
        ("# nobody\n\n", "allowed_signers: expected a line for each signer, found none"),
        ("alice\n", "allowed_signers, line 1: expected PRINCIPALS [OPTIONS] KEYTYPE KEY, found ''"),
        ("alice ssh-ed25519 AAAA\n", "allowed_signers, line 1: expected PRINCIPALS [OPTIONS] KEYTYPE KEY, found"),
        (
            "#\nalice ssh-rsa KEY\n",
            "allowed_signers, line 2: expected PRINCIPALS [OPTIONS] KEYTYPE KEY, found 'ssh-rsa",
        ),
        (
            'alice expires="2020" ssh-ed25519 KEY\n',
            "allowed_signers, line 1: expected the options cert-authority, namespaces, valid-after or valid-before, "
            "found 'expires=",
        ),
        (
            'alice valid-before="tomorrow" ssh-ed25519 KEY\n',
            "allowed_signers, line 1: expected a time such as 20301231 or 203012312359Z, found 'tomorrow'",
        ),
    ],
)
def test_allowed_signers_that_cannot_be_read_are_refused(alice: Person, text: str, message: str) -> None:
    with pytest.raises(SignatureError, match=f"^{re.escape(message)}"):
        Trust(text.replace("KEY", alice.public.split()[1]))


def test_a_line_of_allowed_signers_may_have_all_that_ssh_keygen_knows(alice: Person) -> None:
    line = f'a@b,*@c cert-authority,namespaces="git,x",VALID-BEFORE="20301231Z" {alice.public} a comment'
    (signer,) = parse_allowed_signers(line)
    assert (signer.principals, signer.authority, signer.namespaces) == ("a@b,*@c", True, "git,x")
    assert signer.valid_before is not None
    assert signer.valid_before.isoformat() == "2030-12-31T00:00:00+00:00"


def test_a_revoked_key_that_is_none_is_refused_and_not_passed_over(alice: Person) -> None:
    with pytest.raises(SignatureError, match=r"^revoked_keys, line 2: expected KEYTYPE KEY, found 'alice'$"):
        Trust(alice.line(), f"{alice.public}\nalice\n")


@pytest.mark.parametrize("what", ["manifest", "signature"])
def test_any_flipped_byte_is_refused(alice: Person, signature: bytes, what: str) -> None:
    trust = Trust(alice.line())
    data = DATA if what == "manifest" else signature
    for place in range(0, len(data), 1 if what == "manifest" else 3):
        flipped = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        found = check_signature(*((flipped, signature) if what == "manifest" else (DATA, flipped)), trust)
        assert not found.passed, (place, found)


def test_bytes_of_a_signature_that_decoding_would_pass_over_are_refused(signature: bytes) -> None:
    for other in (
        signature.replace(b"\n", b"\r\n"),
        signature + b" ",
        signature.replace(b"\n-----END", b" \n-----END"),
    ):
        assert not check_intact(DATA, other).passed


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    socket = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
    while not socket.exists() and process.poll() is None:
        os.sched_yield()
    yield
    process.terminate()
    process.wait(10)


@pytest.mark.usefixtures("agent")
def test_a_key_in_the_agent_signs_by_its_public_half(tmp_path: Path) -> None:
    carol = make_person("carol", tmp_path)
    subprocess.run(["ssh-add", "-q", carol.key], check=True)
    carol.key.unlink()
    signed = sign(DATA, carol.key.with_suffix(".pub"))
    assert check_signature(DATA, signed, Trust(carol.line())).passed


def test_rsa_and_ecdsa_keys_sign_too(tmp_path: Path) -> None:
    for kind in ("rsa", "ecdsa"):
        person = make_person(kind, tmp_path, kind)
        assert check_signature(DATA, sign(DATA, person.key), Trust(person.line())).passed


def test_what_cannot_sign_is_told(tmp_path: Path, alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SignatureError, match=r"^key: expected the file of a key, found none at .*/absent$"):
        sign(DATA, tmp_path / "absent")
    (tmp_path / "text").write_text("no key\n")
    with pytest.raises(SignatureError, match=r"^key: .*/text does not sign: "):
        sign(DATA, tmp_path / "text")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SignatureError, match=r"^expected ssh-keygen \(the package openssh-client\) on the path"):
        sign(DATA, alice.key)


def test_an_ssh_keygen_that_does_not_answer_is_not_waited_for(
    tmp_path: Path, alice: Person, signature: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ssh-keygen").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "ssh-keygen").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(_signature, "_SECONDS", 0.2)
    with pytest.raises(SignatureError, match="ssh-keygen: expected an answer within"):
        check_signature(DATA, signature, Trust(alice.line()))


def test_files_that_are_not_there_are_told(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    with pytest.raises(
        SignatureError, match=f"^allowed_signers: expected a file of signers at {nowhere}, found: No such"
    ):
        read_allowed_signers(nowhere)
    with pytest.raises(SignatureError, match=f"^revoked_keys: expected a file of keys at {nowhere}, found: No such"):
        read_revoked_keys(nowhere)
