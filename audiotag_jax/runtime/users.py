"""Users and groups without a name, as in containers that run under an arbitrary id."""

import grp
import pwd
from collections.abc import Callable
from typing import Any


def name_unknown_users() -> None:
    """Makes `pwd.getpwuid` and `grp.getgrgid` return an entry with the number as name where there is none.

    TFDS asks for the size of the files that it writes through etils, which looks up the names of their owner and group
    too and raises KeyError without.
    """
    if not hasattr(pwd.getpwuid, "named"):
        setattr(pwd, "getpwuid", _named(pwd.getpwuid, _user))  # noqa: B010
        setattr(grp, "getgrgid", _named(grp.getgrgid, _group))  # noqa: B010


def _user(uid: int) -> pwd.struct_passwd:
    return pwd.struct_passwd((str(uid), "x", uid, uid, "", "/", "/bin/sh"))


def _group(gid: int) -> grp.struct_group:
    return grp.struct_group((str(gid), "x", gid, []))


def _named(look_up: Callable[[int], Any], make: Callable[[int], Any]) -> Callable[[int], Any]:
    def entry(number: int) -> Any:
        try:
            return look_up(number)
        except KeyError:
            return make(number)

    entry.named = True  # type: ignore[attr-defined]
    return entry
