#!/bin/sh
# cargo runs this in place of the compiler for the crates of this workspace. It links the command without shared
# libraries, so that it runs on any Linux; the extension must share the server's C library.
case " $* " in
    *" --crate-name omni_credentials "*" --crate-type bin "*) set -- "$@" -C target-feature=+crt-static ;;
esac
exec "$@"
