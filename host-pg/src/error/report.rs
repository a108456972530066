//! Hands an error to Postgres.

use std::panic::UnwindSafe;

use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::{PgLogLevel, PgSqlErrorCode, PgTryBuilder};

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

fn send(code: PgSqlErrorCode, message: String, detail: Option<String>, hint: Option<String>) -> ! {
    let mut report = ErrorReport::new(code, message, "omni_credentials");
    if let Some(detail) = detail {
        report = report.set_detail(detail);
    }
    if let Some(hint) = hint {
        report = report.set_hint(hint);
    }
    report.report(PgLogLevel::ERROR);
    unreachable!("an ERROR report does not return")
}
