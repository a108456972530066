"""From the bytes of a module to a component that can be instantiated."""

from __future__ import annotations

import contextlib
import hashlib

from wasmtime import WasmtimeError, component as wit

from . import _bulk, _cache
from ._engine import engine
from ._sandbox import Loaded
from .errors import ModuleError


def loaded(wasm: bytes, digest: str, cache: bool, timeout: float) -> Loaded:
    """Compiles a module with the adapter beside it, or takes it from the cache, and looks it over."""
    with contextlib.suppress(_bulk.LateImports):
        whole = _bulk.with_adapter(wasm)
        of_whole = hashlib.sha256(whole).hexdigest()
        component = _cache.load(of_whole) if cache else None
        with contextlib.suppress(WasmtimeError):
            return _looked_over(component or wit.Component(engine(), whole), of_whole, cache and not component, timeout)
    # The module alone shows what is wrong with it.
    component = _cache.load(digest) if cache else None
    try:
        return _looked_over(component or wit.Component(engine(), wasm), digest, cache and not component, timeout)
    except WasmtimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ModuleError(f"not a WebAssembly component this host can run: {reason}") from None


def _looked_over(component: wit.Component, digest: str, keep: bool, timeout: float) -> Loaded:
    # Only what may run gets into the cache.
    found = Loaded(component, seconds=timeout)
    if keep:
        _cache.keep(component, digest)
    return found
