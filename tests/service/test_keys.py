"""Keys: their file, and what each may do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sdpose_client import (
    ErrorCode,
    ServiceError,
)
from service.access.callers import Access, Caller, Rate
from service.access.keys import (
    Key,
    KeyFileError,
    Scope,
    digest_of,
    known_keys,
    new_key,
    plain_keys,
    read_key_file,
)
from service.cli.main import app
from service.parameters import Priority
from tests.service.conftest import rejected
from tests.service.keys import KEY, a_key, table, written


def access(*keys: Key, shed: Callable[[], None] = lambda: None) -> Access:
    return Access(keys, Priority.NORMAL, shed)


def test_a_file_is_read_whole(key_file: Path) -> None:
    more = (
        "requests_per_second = 20\ncrops_per_second = 100.5\nmax_streams = 4\n"
        'max_priority = "high"\nexpires = 2031-02-03\nscopes = ["pose", "admin"]\n'
    )
    one, other = read_key_file(written(key_file, table("kiosk", KEY, more), table("door", "other")))
    assert (one.name, one.digest) == ("kiosk", digest_of(KEY))
    assert (one.requests_per_second, one.crops_per_second, one.max_streams) == (20, 100.5, 4)
    assert one.max_priority is Priority.HIGH
    assert one.expires == datetime(2031, 2, 3, tzinfo=UTC)
    assert one.scopes == {Scope.POSE, Scope.ADMIN}
    assert other.scopes == {Scope.POSE}
    assert other.max_priority is other.expires is other.max_streams is None


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[kiosk]\n", "kiosk: sha256 must be the 64 hexadecimal digits"),
        ('[kiosk]\nsha256 = "abc"\n', "kiosk: sha256 must be"),
        (f'[kiosk]\nsha256 = "{digest_of("").hex()}"\n', "sha256: is the hash of no key at all"),
        (
            f'[kiosk]\nsha256 = "{"0" * 64}"\nscopes = []\n',
            "kiosk: scopes: Frozenset should have at least 1 item",
        ),
        (table("kiosk", more="requests_per_sec = 2\n"), "there is no 'requests_per_sec'; known"),
        (table("kiosk", more="requests_per_second = 0\n"), "requests_per_second: Input should be"),
        (table("kiosk", more="crops_per_second = inf\n"), "crops_per_second: Input should be"),
        (table("kiosk", more='expires = "soon"\n'), "expires: must be a date of TOML"),
        (table("kiosk", more='scopes = ["root"]\n'), "scopes"),
        (table("kiosk", more='max_priority = "top"\n'), "max_priority"),
        (table("kiosk", more='name = "other"\n'), "there is no field name"),
        (table("kiosk") + table("door"), "kiosk and door are the same key"),
        ('["a b"]\nsha256 = "0"\n', "'a b' is no name for a key"),
        ("kiosk = 3\n", "kiosk must be a table"),
        ("[kiosk\n", "not a TOML file"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_sentence(key_file: Path, content: str, told: str) -> None:
    with pytest.raises(KeyFileError) as refused:
        read_key_file(written(key_file, content))
    assert told in str(refused.value)
    assert str(key_file) in str(refused.value)
    assert digest_of(KEY).hex() not in str(refused.value)


def test_a_file_that_is_missing_or_empty_lets_no_one_in(key_file: Path) -> None:
    with pytest.raises(KeyFileError, match="cannot be read"):
        read_key_file(key_file)
    with pytest.raises(KeyFileError, match="holds no key"):
        known_keys((), written(key_file, ""))
    assert [key.name for key in known_keys(["b", "a"], key_file)] == ["key-1", "key-2"]


def test_keys_are_told_apart_by_their_hash_alone() -> None:
    known = access(*plain_keys(["one", "two"]))
    assert known.identify("one", None, None).name == "key-1"
    assert known.identify(None, "Bearer two", None).name == "key-2"
    assert known.identify(None, "bearer  two", None).name == "key-2"
    for shown in ("", "On", "one ", "ONE", digest_of("one").hex(), "onetwo"):
        with rejected(ErrorCode.UNAUTHENTICATED):
            known.identify(shown, None, None)
    for authorization in (None, "Basic one", "one", "Bearer"):
        with rejected(ErrorCode.UNAUTHENTICATED):
            known.identify(None, authorization, None)
    (hidden,) = plain_keys(["hush"])
    assert "hush" not in f"{hidden} {hidden.model_dump()} {access(hidden)}"


def test_without_keys_a_share_is_an_address() -> None:
    known = access()

    def share(address: str | None) -> object:
        return known.identify(None, None, address).share

    assert share("10.0.0.1") == share("10.0.0.1") == share("::ffff:10.0.0.1")
    assert share("10.0.0.1") != share("10.0.0.2")
    assert share("2001:db8::1") == share("2001:db8::ffff:2"), "a host has a whole /64"
    assert share("2001:db8::1") != share("2001:db8:0:1::1")
    assert share("fe80::1%eth0") == share("fe80::1")
    assert share(None) == share(None)
    assert known.identify("any", "Bearer thing", "10.0.0.1").name is None


def test_a_key_expires_and_may_be_taken_back() -> None:
    now = datetime.now(UTC)
    known = access(a_key(expires=now + timedelta(seconds=0.05)), a_key("b", "b"))
    caller, other = known.identify(KEY, None, None), known.identify("b", None, None)
    caller.check()
    while datetime.now(UTC) <= now + timedelta(seconds=0.05):
        pass
    for use in (caller.check, lambda: known.identify(KEY, None, None)):
        with pytest.raises(ServiceError, match="has expired"):
            use()
    known.replace([a_key("c", "c")])
    with pytest.raises(ServiceError, match="not known any more"):
        other.check()
    other.charge(3)  # what was let in before ends without a word


def test_rates_allow_a_burst_of_a_second() -> None:
    now = 0.0
    rate = Rate(4.0, lambda: now)
    for _ in range(4):
        assert rate.wait_s() == 0
        rate.spend(1)
    assert rate.wait_s() == pytest.approx(0.25)
    now = 0.25
    assert rate.wait_s() == 0
    rate.spend(9)  # overdrawn: what was not known before must flow in again
    assert rate.wait_s() == pytest.approx(9 / 4)
    now = 1000.0
    for _ in range(4):
        assert rate.wait_s() == 0
        rate.spend(1)
    assert rate.wait_s() > 0, "what is not used is not saved up"
    slow = Rate(0.5, lambda: now)
    assert slow.wait_s() == 0
    slow.spend(1)
    assert slow.wait_s() == pytest.approx(2.0)


def let_in(caller: Caller) -> None:
    """One request, as the door does it."""
    caller.check(request=True)
    caller.spend_request()


def test_limits_of_a_key() -> None:
    shed: list[int] = []
    known = access(
        a_key(requests_per_second=2, crops_per_second=10, max_streams=1),
        a_key("free", "free"),
        shed=lambda: shed.append(1),
    )
    caller, free = known.identify(KEY, None, None), known.identify("free", None, None)
    let_in(caller)
    let_in(caller)
    with rejected(ErrorCode.OVERLOADED, match="may have 2 requests a second") as refused:
        let_in(known.identify(KEY, None, None))  # another connection of the same key
    assert 0 < (refused.value.retry_after_s or 0) <= 0.5
    caller.check()  # frames of streams are no requests
    caller.charge(25)
    with pytest.raises(ServiceError, match="may have 10 crops a second") as refused:
        caller.check()
    assert 1.4 < (refused.value.retry_after_s or 0) <= 1.6
    assert len(shed) == 2
    for _ in range(100):
        let_in(free)
        free.charge(100)
    calm = access(a_key(max_streams=1)).identify(KEY, None, None)
    with calm.stream(), pytest.raises(ServiceError, match="may have 1 streams"), calm.stream():
        pass
    with calm.stream():
        pass


def test_new_limits_count_at_once_and_use_is_remembered() -> None:
    known = access(a_key(requests_per_second=1))
    caller = known.identify(KEY, None, None)
    let_in(caller)
    known.replace([a_key(requests_per_second=1, max_streams=3)])
    with pytest.raises(ServiceError, match="requests a second"):
        let_in(caller)
    known.replace([a_key(requests_per_second=5)])
    let_in(caller)


def test_priority_and_scope() -> None:
    known = access(a_key(), a_key("vip", "vip", max_priority="high", scopes=["admin"]))
    plain, vip = known.identify(KEY, None, None), known.identify("vip", None, None)
    for priority in (Priority.NORMAL, Priority.LOW):
        assert plain.priority(priority) is priority
    with rejected(
        ErrorCode.PERMISSION_DENIED, match="high is more than the normal", field="priority"
    ):
        plain.priority(Priority.HIGH)
    assert vip.priority(Priority.HIGH) is Priority.HIGH
    # A request that names none is never refused for it.
    assert [one.priority(None) for one in (plain, vip)] == [Priority.NORMAL] * 2
    assert Caller("slow", max_priority=Priority.LOW).priority(None) is Priority.LOW
    known.check_scope(plain, Scope.POSE)
    known.check_scope(vip, Scope.ADMIN)
    for caller, scope in ((plain, Scope.ADMIN), (vip, Scope.POSE), (Caller("any"), Scope.ADMIN)):
        with rejected(ErrorCode.PERMISSION_DENIED):
            known.check_scope(caller, scope)


def test_the_command_makes_keys_and_shows_them_once(key_file: Path) -> None:
    run = CliRunner().invoke
    made = run(app, ["keys", "new", "kiosk", "--file", str(key_file)])
    assert made.exit_code == 0
    key = made.output.split("only now): ")[1].split()[0]
    assert key not in key_file.read_text()
    assert key_file.stat().st_mode & 0o077 == 0
    assert run(app, ["keys", "new", "door", "--file", str(key_file)]).exit_code == 0
    assert [each.name for each in read_key_file(key_file)] == ["kiosk", "door"]
    assert access(*read_key_file(key_file)).identify(key, None, None).name == "kiosk"
    twice = run(app, ["keys", "new", "door", "--file", str(key_file)])
    assert isinstance(twice.exception, KeyFileError)
    shown = run(app, ["keys", "list", str(key_file)]).output
    assert "kiosk: scopes pose" in shown
    assert digest_of(key).hex() not in shown
    alone = run(app, ["keys", "new", "x"]).output
    assert '["x"]\nsha256 = "' in alone
    assert isinstance(run(app, ["keys", "new", "x y"]).exception, KeyFileError)
    assert len({new_key() for _ in range(100)}) == 100
