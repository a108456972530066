# For those who install extensions with `make`, as PGXN's client does. It needs only the Postgres that PG_CONFIG names,
# with its server headers; ./just brings in what else is missing.
#
#   make PG_CONFIG=/usr/lib/postgresql/17/bin/pg_config
#   sudo make install PG_CONFIG=…                   installs what `make` built; DESTDIR=… goes before the folders
#   sudo make uninstall PG_CONFIG=…                 removes it
#   make installcheck PG_CONFIG=… PGUSER=postgres   against a running server whose environment has
#                                                   OMNI_CREDENTIALS_MASTER_PASSWORD

PG_CONFIG ?= pg_config
export PG_CONFIG

all:
	./just build

install:
	tools/install.sh

uninstall:
	rm -f "$(DESTDIR)$$($(PG_CONFIG) --pkglibdir)/omni_credentials.so" \
	    "$(DESTDIR)$$($(PG_CONFIG) --sharedir)"/extension/omni_credentials.control \
	    "$(DESTDIR)$$($(PG_CONFIG) --sharedir)"/extension/omni_credentials--*.sql

# The folder of results is one that another user's check cannot have made before; a failure says where it is.
installcheck:
	results=$$(mktemp -d) && \
	"$$($(PG_CONFIG) --pkglibdir)"/pgxs/src/test/regress/pg_regress --bindir="$$($(PG_CONFIG) --bindir)" \
	    --inputdir=tests/pg_regress --outputdir="$$results" \
	    --dbname=contrib_regression_omni_credentials omni_credentials && \
	rm -r "$$results"

clean:
	./just clean

.PHONY: all install uninstall installcheck clean
