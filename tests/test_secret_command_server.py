"""A server whose master secret a program prints."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from conftest import PASSWORD, VARIABLE, Database, fresh_database, master_key, new_server, refused
from printing import FAILURES, arguments, environment, files, is_alive, recorder, runs, script

VIEW = "omni_credentials.credentials"
READ = f"select value from {VIEW}"
COMMAND = f"{VARIABLE}_COMMAND"
VECTORS = json.loads((Path(__file__).parents[1] / "conformance" / "commands.json").read_text())
PRELOAD = {"shared_preload_libraries": "omni_credentials"}
# Without shared memory for keys.
NOTHING = {"dynamic_shared_memory_type": "mmap"}


class Programs:
    """A folder that the server's account can use, with programs in it."""

    def __init__(self, database: Database) -> None:
        self.server = database.server
        self.path = database.server.data / "programs"
        self.path.mkdir()
        self.server.account.own(self.path)

    def recorder(self, secret: str = PASSWORD) -> Path:
        path = recorder(self.path, secret)
        self.server.account.own(path, self.path / "records")
        return path

    def script(self, text: str, mode: int = 0o755) -> Path:
        path = script(self.path / "program", text, mode)
        self.server.account.own(path)
        return path


@pytest.fixture
def programs(own_db: Database) -> Programs:
    own_db.run(f"insert into {VIEW} (name, value) values ('n', 'value')")
    return Programs(own_db)


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Callable[[dict[str, str]], tuple[Database, Programs]]:
    def start(settings: dict[str, str]) -> tuple[Database, Programs]:
        server = new_server("printed", settings)
        request.addfinalizer(server.remove)
        server.start({VARIABLE: PASSWORD})
        database = fresh_database(server)
        database.run(f"insert into {VIEW} (name, value) values ('n', 'value')")
        return database, Programs(database)

    return start


@pytest.mark.parametrize("shared", (True, False))
def test_it_runs_once_where_keys_are_shared(start, shared: bool) -> None:
    database, programs = start(PRELOAD if shared else NOTHING)
    database.run("create schema other")
    database.run("select omni_credentials.instantiate('other')")
    database.run("insert into other.credentials (name, value) values ('m', 'other')")
    program = programs.recorder()
    database.server.restart({COMMAND: str(program)})

    def read(_: int) -> None:
        assert database.run(READ) == [(b"value",)]
        assert database.run("select value from other.credentials") == [(b"other",)]
        database.run(f"select omni_credentials.set_credential('k{_}', 'x')")
        database.run(f"delete from {VIEW} where name = 'k{_}'")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(8)))
    if shared:
        assert runs(programs.path) == 1
    else:
        # Each session runs it once, whatever it reads.
        assert runs(programs.path) == 8 * 4
        with database.connect() as session:
            session.execute(READ)
            session.execute("select value from other.credentials")
            session.execute("select omni_credentials.rotate_key()")
        assert runs(programs.path) == 8 * 4 + 1
    before = runs(programs.path)
    database.server.restart()
    read(0)
    assert runs(programs.path) > before, "another start of the server"


def test_the_processes_of_a_parallel_query_run_it_once(start) -> None:
    database, programs = start(PRELOAD)
    database.run(f"insert into {VIEW} (name, value) select 'n' || n, 'v' from generate_series(1, 20000) n")
    database.run("analyze omni_credentials.encrypted_credentials")
    program = programs.recorder()
    program.write_text(program.read_text().replace("#!/bin/sh\n", "#!/bin/sh\nsleep 1\n"))
    database.server.restart({COMMAND: str(program)})
    with database.connect() as session:
        for setting in ("parallel_setup_cost = 0", "parallel_tuple_cost = 0", "min_parallel_table_scan_size = 0",
                        "max_parallel_workers_per_gather = 4", "parallel_leader_participation = on"):
            session.execute(f"set {setting}")
        plan = session.execute(f"explain (analyze, costs off) select count(value) from {VIEW}").fetchall()
        assert any("Workers Launched" in line and "0" not in line.split(":")[1] for (line,) in plan), plan
    assert runs(programs.path) == 1


def test_the_words_and_the_environment(own_db: Database, programs: Programs) -> None:
    program = programs.recorder()
    given = VECTORS["environment"]
    variables = dict.fromkeys((*given["passed_on"], *given["kept"]), "/nowhere") | {"PATH": os.environ["PATH"]}
    for name in ("LANG", "LC_ALL", "LANGUAGE", "TZ", "PGDATA", "LD_PRELOAD", "LD_LIBRARY_PATH"):
        variables.pop(name, None)
    for number, vector in enumerate(VECTORS["split"]):
        variables[f"V{number}_COMMAND"] = f"{program} {vector['command']}"
    own_db.server.restart(variables | {VARIABLE: PASSWORD})
    for number, vector in enumerate(VECTORS["split"]):
        own_db.run(f"create schema s{number}")
        own_db.run(f"select omni_credentials.instantiate('s{number}', 'V{number}')")
        own_db.run(f"insert into s{number}.credentials (name, value) values ('n', 'v')")
        assert arguments(programs.path) == vector["words"], vector["comment"]
    assert runs(programs.path) == len(VECTORS["split"])
    found = environment(programs.path) - {"PWD", "_", "SHLVL", "OLDPWD"}
    # The server itself sets the categories of the locale.
    assert found <= {*given["passed_on"]}
    assert set(given["passed_on"]) - {"LANG", "LC_ALL", "LANGUAGE", "TZ"} <= found
    # Its input, output and errors, and those that the shell opened.
    assert files(programs.path) <= {"0", "1", "2", "10", "11"}


@pytest.mark.parametrize("case", FAILURES)
def test_a_program_that_fails(own_db: Database, programs: Programs, case: str) -> None:
    text, expected = FAILURES[case]
    program = programs.script(text)
    own_db.server.restart({COMMAND: str(program)})
    reason, _, said = expected.partition(": {program}, which said: ")
    reason = reason.removesuffix(": {program}")
    with refused("38000", f"{COMMAND} names: {reason}$", hint="server's log") as caught:
        own_db.run(READ)
    # A role that reads credentials need not know what a program says of the server.
    assert not said or said not in str(caught.error) + str(caught.error.diag.message_detail)
    (line,) = [line for line in own_db.server.log.read_text(errors="replace").splitlines() if "LOG:  omni_credentials: " in line]
    assert line.endswith(f"wrote to standard error: {said or 'nothing'}") and "LOG:" in line
    status = own_db.run("select secret, unlocks, problem from omni_credentials.status()")
    assert status[0][:2] == ("command", False) and reason in status[0][2]
    # Nothing of it is kept.
    assert own_db.run(f"select name from {VIEW}") == [("n",)]
    own_db.server.restart({VARIABLE: PASSWORD})
    assert own_db.run(READ) == [(b"value",)]


def test_commands_that_cannot_run(own_db: Database, programs: Programs) -> None:
    plain = programs.script("echo", 0o644)
    for command, reason in (
        ("/nowhere/program", "there is no such program"),
        (str(plain), "the program is not executable"),
        ("'unpaired", "the command has a single quote without its pair"),
        ("bin/program", "the command names neither"),
    ):
        own_db.server.restart({COMMAND: command})
        with refused("38000", reason):
            own_db.run(READ)
    own_db.server.restart({COMMAND: "true", f"{VARIABLE}_FILE": "/nowhere"})
    with refused("F0000", f"{VARIABLE}_FILE and {COMMAND} are both set", hint="Remove one of"):
        own_db.run(READ)
    ((secret, unlocks, problem),) = own_db.run("select secret, unlocks, problem from omni_credentials.status()")
    assert (secret, unlocks) == (None, False) and "both set" in problem
    # A wrong secret: the program is not at fault.
    own_db.server.restart({COMMAND: "echo wrong"})
    with refused("28P01"):
        own_db.run(READ)
    own_db.server.restart({VARIABLE: PASSWORD, COMMAND: "false", f"{VARIABLE}_FILE": "/nowhere"})
    assert own_db.run(READ) == [(b"value",)]
    assert own_db.run("select secret from omni_credentials.status()") == [("variable",)]


@pytest.mark.parametrize("how", ("cancel", "timeout", "terminate"))
def test_a_program_that_hangs_can_be_stopped(own_db: Database, programs: Programs, how: str) -> None:
    program = programs.script(f"trap '' TERM INT; sleep 300 & echo $! $$ > {programs.path}/pids; wait; wait")
    own_db.server.restart({COMMAND: str(program)})
    session = own_db.connect()
    if how == "timeout":
        session.execute("set statement_timeout = '500ms'")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(session.execute, READ)
        while not (programs.path / "pids").exists() or not (programs.path / "pids").read_text().strip():
            time.sleep(0.01)
        pids = [int(pid) for pid in (programs.path / "pids").read_text().split()]
        if how != "timeout":
            function = {"cancel": "pg_cancel_backend", "terminate": "pg_terminate_backend"}[how]
            own_db.run(f"select {function}(%s)", session.info.backend_pid)
        with pytest.raises(psycopg.Error) as caught:
            running.result(60)
    assert caught.value.sqlstate == {"terminate": "57P01"}.get(how, "57014")
    deadline = time.monotonic() + 30
    while any(map(is_alive, pids)):
        assert time.monotonic() < deadline, "something goes on"
        time.sleep(0.05)
    if how != "terminate":
        # The session works on, and the next one is not kept waiting for its turn.
        session.execute("set statement_timeout = 0")
        assert session.execute(f"select name from {VIEW}").fetchall() == [("n",)]
    programs.script(f"echo '{PASSWORD}'")
    assert own_db.run(READ) == [(b"value",)]


def test_a_session_that_waits_for_another_one(own_db: Database, programs: Programs) -> None:
    program = programs.script(f"echo > {programs.path}/began; while ! [ -e {programs.path}/go ]; do sleep 0.05; done; echo '{PASSWORD}'; echo run >> {programs.path}/ran")
    own_db.server.restart({COMMAND: str(program)})
    first, second = own_db.connect(), own_db.connect()
    with ThreadPoolExecutor(2) as pool:
        reading = pool.submit(first.execute, READ)
        while not (programs.path / "began").exists():
            time.sleep(0.01)
        second.execute("set statement_timeout = '300ms'")
        with refused("57014"):
            second.execute(READ)
        second.execute("set statement_timeout = 0")
        waiting = pool.submit(second.execute, READ)
        (programs.path / "go").touch()
        assert reading.result(60).fetchall() == waiting.result(60).fetchall() == [(b"value",)]
    if own_db.server.installation.major >= 17:
        assert (programs.path / "ran").read_text().split() == ["run"]


def test_a_session_that_is_killed_takes_the_program_along(own_db: Database, programs: Programs) -> None:
    program = programs.script(f"echo $$ > {programs.path}/pid; exec sleep 300")
    own_db.server.restart({COMMAND: str(program)})
    session = own_db.connect()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(session.execute, READ)
        while not (programs.path / "pid").exists() or not (programs.path / "pid").read_text().strip():
            time.sleep(0.01)
        os.kill(session.info.backend_pid, signal.SIGKILL)
        with pytest.raises(psycopg.OperationalError):
            running.result(60)
    pid = int((programs.path / "pid").read_text())
    deadline = time.monotonic() + 30
    while is_alive(pid):
        assert time.monotonic() < deadline, "the program goes on"
        time.sleep(0.05)
    # The server recovers from the crash of its session, and a shutdown that waits may come in between.
    own_db.server.stop(signal.SIGQUIT)


class TestOrdinaryRoles:
    """They have no part in which program runs, with which arguments and environment."""

    @pytest.fixture
    def app(self, own_db: Database, programs: Programs) -> Iterator[str]:
        own_db.run("create role app login")
        own_db.grant("app")
        own_db.run(f"insert into {VIEW} (name, value, principal) values ('a', 'of app', 'app')")
        yield "app"

    def test_reading(self, own_db: Database, programs: Programs, app: str) -> None:
        program = programs.recorder()
        own_db.server.restart({COMMAND: f"{program} one"})
        with own_db.connect(app) as session:
            for setting in (f"set session.{COMMAND} = '/bin/false'", "set lc_time = 'C'", "set timezone = 'Asia/Tokyo'",
                            f"set application_name = '{COMMAND}'", "set search_path = public"):
                session.execute(setting)
            assert session.execute(READ).fetchall() == [(b"of app",)]
        assert arguments(programs.path) == ["one"]
        assert environment(programs.path) <= {"PATH", "PWD", "_", "SHLVL", "OLDPWD", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "SHELL"}

    def test_a_variable_of_their_own_choice(self, own_db: Database, programs: Programs, app: str) -> None:
        """Without a superuser's leave, nothing runs."""
        program = programs.recorder(master_key(b"other"))
        own_db.server.restart({VARIABLE: PASSWORD, "OTHER_COMMAND": str(program)})
        own_db.run(f"grant usage on schema omni_credentials to {app}")
        own_db.run(f"grant execute on all functions in schema omni_credentials to {app}")
        own_db.run(f"create schema mine authorization {app}")
        for statement in ("select omni_credentials.instantiate('mine', 'OTHER')",
                          "select omni_credentials.rotate_master_secret('OTHER')"):
            with refused("42501"):
                own_db.run(statement, user=app)
        assert runs(programs.path) == 0
        own_db.allow(app, "OTHER")
        own_db.run("select omni_credentials.instantiate('mine', 'OTHER')", user=app)
        own_db.run("insert into mine.credentials (name, value) values ('n', 'v')", user=app)
        assert runs(programs.path) == 1

    def test_names_that_are_no_names(self, own_db: Database, programs: Programs) -> None:
        """A variable with an ending is another variable."""
        program = programs.recorder()
        own_db.server.restart({VARIABLE: PASSWORD, "OTHER_COMMAND": str(program)})
        own_db.run("select omni_credentials.rotate_master_secret('OTHER_COMMAND')")
        assert runs(programs.path) == 0, "it is a secret now, and no program"


def test_rotation_to_a_program(own_db: Database, programs: Programs) -> None:
    program = programs.recorder("another secret")
    own_db.server.restart({VARIABLE: PASSWORD, "NEXT_COMMAND": str(program)})
    own_db.run("select omni_credentials.rotate_master_secret('NEXT')")
    own_db.server.restart({"NEXT_COMMAND": str(program)})
    assert own_db.run(READ) == [(b"value",)]
    assert own_db.run("select variable, secret, unlocks, problem from omni_credentials.status()") == [
        ("NEXT", "command", True, None)
    ]


def test_the_secret_is_in_no_file(start) -> None:
    """Neither in the data directory nor in the log, nor where a role sees the commands of processes."""
    database, programs = start(PRELOAD | {"log_statement": "all", "log_min_messages": "debug1"})
    program = programs.recorder("a-secret-that-is-easy-to-find")
    database.run("create schema other")
    database.server.restart({VARIABLE: PASSWORD, "OTHER_COMMAND": str(program)})
    database.run("select omni_credentials.instantiate('other', 'OTHER')")
    database.run("insert into other.credentials (name, value) values ('n', 'v')")
    database.run("checkpoint")
    assert runs(programs.path) == 1
    for path in [database.server.log, *database.server.data.rglob("*")]:
        if path.is_file() and path != program:
            assert b"a-secret-that-is-easy-to-find" not in path.read_bytes(), path
