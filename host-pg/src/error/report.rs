//! Hands an error to Postgres.

use std::panic::UnwindSafe;

use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::{PgLogLevel, PgSqlErrorCode, PgTryBuilder, pg_sys};

use super::Error;

impl Error {
    /// Raises the error. Does not return.
    pub(crate) fn raise(self) -> ! {
        if matches!(self, Self::Interrupted) {
            // The server's own report is better: it knows a timeout from a cancel from a shutdown.
            pgrx::check_for_interrupts!();
        }
        let (code, hint) = self.classify();
        send(code, self.to_string(), None, hint)
    }
}

/// Gives the value or raises the error.
pub(crate) fn or_raise<T>(result: Result<T, Error>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => error.raise(),
    }
}

/// Runs SQL of the extension's own whose text does not belong into an error: a page of CONTEXT tells nothing to anyone
/// who called the function. What failed is raised again with its SQLSTATE, message, detail and hint.
pub(crate) fn without_context<T>(run: impl FnOnce() -> T + UnwindSafe) -> T {
    let outcome = PgTryBuilder::new(|| Ok(run()))
        .catch_others(|caught| match caught {
            CaughtError::PostgresError(error) => Err(Box::new(error)),
            other => other.rethrow(),
        })
        .execute();
    match outcome {
        Ok(value) => value,
        Err(error) => {
            let text = |text: Option<&str>| text.map(str::to_owned);
            send(error.sql_error_code(), error.message().to_owned(), text(error.detail()), text(error.hint()))
        }
    }
}

/// Warns.
pub(crate) fn warn(message: String) {
    pgrx::warning!("{}", in_database(message));
}

/// A text, which is UTF-8, for a message of the server, which is in the encoding of the database: in another encoding,
/// characters beyond ASCII become `\u{e9}`. They are exact that way, whatever the client's encoding is.
fn in_database(text: String) -> String {
    // SAFETY: reads a variable that is set before a session runs anything.
    let encoding = unsafe { pg_sys::GetDatabaseEncoding() };
    let passes = [pg_sys::pg_enc::PG_UTF8, pg_sys::pg_enc::PG_SQL_ASCII];
    if text.is_ascii() || passes.into_iter().any(|known| i32::try_from(known) == Ok(encoding)) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_ascii() { escaped.push(letter) } else { escaped.extend(letter.escape_unicode()) }
    }
    escaped
}

fn send(code: PgSqlErrorCode, message: String, detail: Option<String>, hint: Option<String>) -> ! {
    let mut report = ErrorReport::new(code, in_database(message), "omni_credentials");
    if let Some(detail) = detail {
        report = report.set_detail(in_database(detail));
    }
    if let Some(hint) = hint {
        report = report.set_hint(in_database(hint));
    }
    report.report(PgLogLevel::ERROR);
    unreachable!("an ERROR report does not return")
}
