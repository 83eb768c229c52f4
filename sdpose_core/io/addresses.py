"""Addresses as they may be shown: without user, password or other secrets."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, unquote, unquote_plus

_STORES: Final = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")
_ADDRESS: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_ANY_ADDRESS: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+(?<![:,;.)])")
# An address of a host, or a name with a dot, perhaps with a port: what follows it is a path.
_IP: Final = r"\[[0-9A-Fa-f:.]+\]|localhost|\d{1,3}(?:\.\d{1,3}){3}"
_HOST: Final = re.compile(
    rf"(?:{_IP}|[\w-]+(?:\.[\w-]+)+)(?::\d{{1,5}})?[/?#]|(?:{_IP})(?::\d{{1,5}})?$"
)
_PORT: Final = re.compile(r"[\w-]+:\d{1,5}")
_NAME: Final = re.compile(
    r"pass|pwd|psw|pw$|loginpas|secret|token|auth(?!or)|cred|sig$|signature|hmac|hdnts|hdnea|jwt"
    r"|session|^sid$|streamid|(?:^|[^a-z]|api|access)key(?:id)?$|^user(?:.?name)?$|^usr|^login",
    re.IGNORECASE,
)
# Up to the next one that has a name: an & of a password need not be written as %26.
_PARAMETER: Final = re.compile(r"(?<=[?&;])([^=&?;]+)=([^&]*(?:&(?![^=&]+=)[^&]*)*)")
# As cameras of several makers have it, such as /user=admin_password=word_channel=1.
_IN_PATH: Final = re.compile(
    r"(?<=[/&;_])(?:user(?:name)?=[^/?]*?)?(?:pass(?:word|wd)?|pwd|psw)=[^/?]*", re.IGNORECASE
)
_HIDDEN: Final = "***"


def shown(address: str) -> str:
    """An address for messages, results and names of files; whatever else it gets, unchanged.

    User and password go, whatever their letters: all up to the last ``@`` before the path, as
    FFmpeg reads it, and further where a ``/``, ``?`` or ``#`` must belong to a password. Values
    of the path and the query whose names say that they are secret become ``***``, and the
    fragment, which no server is sent, goes. Of a store's address only a password does.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        return address
    scheme, rest = found.groups()
    if scheme.lower() in _STORES:  # where an @ names a container, and a = a partition
        return f"{scheme}://{re.sub(r'^[^/@]*:[^/]*@', '', rest)}"
    rest = rest[len(_user(rest)) :].partition("#")[0]
    path, mark, query = rest.partition("?")
    query = _PARAMETER.sub(_hidden, f"{mark}{query}")
    return f"{scheme}://{_PARAMETER.sub(_hidden, _IN_PATH.sub(_HIDDEN, path))}{query}"


def without_secrets(text: str, address: str = "") -> str:
    """A message that may repeat addresses, `address` among them, or secrets of it."""
    text = _ANY_ADDRESS.sub(
        lambda one: shown(one[0]), text.replace(address or "\0", shown(address))
    )
    for secret in sorted(_secrets(address), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", _HIDDEN, text)
    return text


def _user(rest: str) -> str:
    """The part of user and password, with its ``@``; `rest` is what follows ``://``."""
    before, mark, after = rest.rpartition("@")
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    whole, short = before + mark, rest[: host.rfind("@") + 1]
    if short == whole or (not short and ":" not in host):
        return short
    # Another @ behind the first /, ? or #: of a password, unless of the path of a host.
    plain = _HOST.match(rest[len(short) :]) or (not short and _PORT.fullmatch(host))
    certain = bool(_HOST.match(rest)) and not short
    another = _HOST.match(after)
    return short if plain and (certain or another is None or another[0][-1] in "?#") else whole


def _hidden(parameter: re.Match[str]) -> str:
    secret = _NAME.search(unquote(parameter[1]))
    return f"{parameter[1]}={_HIDDEN}" if secret else parameter[0]


def _secrets(address: str) -> set[str]:
    """All that `shown` hides of an address, as written by users and by libraries."""
    found = _ADDRESS.fullmatch(address)
    if found is None or shown(address) == address:
        return set()
    user = _user(found[2]).removesuffix("@")
    secrets = {user, user.partition(":")[2]}
    for parameter in _PARAMETER.finditer(found[2]):
        if _hidden(parameter) != parameter[0]:
            secrets.add(parameter[2])
    secrets |= {one.rpartition("=")[2] for one in _IN_PATH.findall(found[2])}
    decoded = secrets | {unquote(one) for one in secrets} | {unquote_plus(one) for one in secrets}
    quoted = {quote(one, safe=safe) for one in decoded for safe in ("", ":", "/:")}
    return {one for one in decoded | quoted if one}
