"""When a credential expires: as Python says it, and as the contract does."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from .errors import InvalidInput

# A point in time, or a time from now; none is never.
Expires: TypeAlias = datetime | timedelta | None

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_seconds(expires: Expires) -> int | None:
    """Whole seconds since 1970. Raises `InvalidInput` for a time without a time zone, and for one before 1970."""
    if expires is None:
        return None
    if isinstance(expires, timedelta):
        seconds = int(time.time() + expires.total_seconds())
    elif isinstance(expires, datetime):
        if expires.utcoffset() is None:
            raise InvalidInput("the expiry has no time zone", hint="datetime(2027, 1, 31, tzinfo=timezone.utc)")
        seconds = (expires - _EPOCH) // timedelta(seconds=1)
    else:
        raise InvalidInput(f"an expiry is a datetime or a timedelta, not {type(expires).__name__}")
    if seconds < 0:
        raise InvalidInput("the expiry is before 1970", code="invalid-expiry")
    return seconds


def to_datetime(expires: int | None) -> datetime | None:
    """In UTC."""
    return None if expires is None else _EPOCH + timedelta(seconds=expires)
